"""Twenty sets of rules that nothing here was tuned on; fixed, so that numbers of different days can be compared.

They were written down before the first of them was run, for levels of 9 x 13 cells, and cover every kind of rule alone
and in pairs.
"""

VERSION = 1  # raise it with any change of a set

HELD_OUT: tuple[tuple[str, ...], ...] = (
    ("count(wall) <= 52",),
    ("count(wall) >= 58",),
    ("count(enemy) == 0",),
    ("count(enemy) >= 4",),
    ("count(enemy1) == count(enemy2)",),
    ("count(empty) >= 2*count(wall) - 60",),
    ("dist(player,key) >= 8",),
    ("dist(player,door) <= 5",),
    ("dist_path(player,key) >= 10",),
    ("dist_path(player,door) <= 6",),
    ("dist_path(key,door) >= 9",),
    ("symmetric: lr",),
    ("symmetric: ud",),
    ("symmetric: rot",),
    ("connected",),
    ("tile(4,6) == wall", "tile(1,1) != wall"),
    ("tile(4,1) == player", "dist(key,door) >= 4"),
    ("count(wall) <= 56", "connected"),
    ("symmetric: lr", "count(enemy) <= 2", "dist(player,door) >= 6"),
    ("connected", "dist_path(player,key) >= 8", "count(enemy3) == 0"),
)
