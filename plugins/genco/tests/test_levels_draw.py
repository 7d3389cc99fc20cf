"""Pictures of levels are well-formed, complete, told in words, and show every tile in its place."""

from xml.etree import ElementTree

import numpy as np
import pytest

from tian.errors import InvalidInput
from tian_genco.levels import tiles
from tian_genco.levels.draw import gallery_svg, save_png
from tian_genco.levels.make import make_levels

SVG = "{http://www.w3.org/2000/svg}"
GRIDS = make_levels(5, seed=4)


def test_a_gallery_shows_each_tile_in_its_place():
    root = ElementTree.fromstring(gallery_svg(GRIDS, columns=2, captions=list("abcde"), alt='five "levels" & more'))
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == 'five "levels" & more'
    groups = root.findall(f"{SVG}g")
    assert [g.find(f"{SVG}text").text for g in groups] == list("abcde")
    for group, grid in zip(groups, GRIDS, strict=True):
        drawn = np.full_like(grid, tiles.EMPTY)
        for use in group.findall(f"{SVG}use"):
            name = use.attrib["href"].removeprefix("#tile-")
            drawn[int(use.attrib["y"]) // 10, int(use.attrib["x"]) // 10] = tiles.NAMES.index(name)
        assert (drawn == grid).all()
    defined = {g.attrib["id"] for g in root.iter(f"{SVG}g") if "id" in g.attrib}
    assert {use.attrib["href"][1:] for use in root.iter(f"{SVG}use")} == defined
    assert len({g.attrib["transform"] for g in groups}) == 5


def test_drawing_is_deterministic_and_small():
    text = gallery_svg(GRIDS, columns=9, alt="levels")
    assert text == gallery_svg(GRIDS.copy(), columns=5, alt="levels")
    assert len(text) < 4000 * len(GRIDS)


def test_a_png_shows_the_walls(tmp_path):
    import matplotlib.image

    save_png(GRIDS, tmp_path / "levels.png", 2)
    picture = matplotlib.image.imread(tmp_path / "levels.png")
    assert picture.shape[:2] == (3 * 192 - 12, 2 * 272 - 12)
    centres = picture[2:180:20, 2:260:20, :3].mean(axis=2)  # a corner of each cell of the first level: stone or not
    assert ((centres < 0.6) == (GRIDS[0] == tiles.WALL)).all()


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(InvalidInput, match="at least one level"):
        gallery_svg(GRIDS[:0], columns=2, alt="none")
    with pytest.raises(InvalidInput, match="columns"):
        gallery_svg(GRIDS, columns=0, alt="none")
    with pytest.raises(InvalidInput, match="2 captions for 5"):
        gallery_svg(GRIDS, columns=2, captions=["a", "b"], alt="x")
