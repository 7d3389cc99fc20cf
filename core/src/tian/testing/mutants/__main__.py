"""`python -m tian.testing.mutants [ROLE ...]`: the tables of `docs/conformance.md`, from the code and a full survey.

`--checks` prints the lists of checks alone, which takes a second instead of minutes.
"""

from __future__ import annotations

import sys

from tian.testing.mutants import check_tables, roles, survey, table_head


def main(arguments: list[str]) -> int:
    """Print them; 1 when a mutant escaped or a check is dead."""
    sys.stdout.write(check_tables())
    if "--checks" in arguments:
        return 0
    sys.stdout.write(f"\n{table_head()}\n")
    bad = []
    for role in arguments or roles():
        found = survey(role)
        sys.stdout.write(f"{found.row()}\n")
        sys.stdout.flush()
        bad += [f"{role}: {name!r} escaped" for name in found.escaped]
        bad += [f"{role}: {check} catches nothing" for check in found.dead]
    sys.stderr.write("".join(f"{line}\n" for line in bad))
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
