"""The conformance kit can fail: fakes broken in one sentence each are caught, and no check is idle."""

import re
import sys
from pathlib import Path

import pytest

from tian.testing.conformance import checks_of, run_conformance
from tian.testing.mutants import check_tables, conformance_of, mutants_of, roles, survey, table_head

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "conformance.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("role", roles())
def test_a_few_mutants_of_a_role_are_caught(role):
    found = mutants_of(role)
    assert len({m.name for m in found}) == len(found) >= 15
    for mutant in [found[i * len(found) // 5 + 1] for i in range(5)]:
        assert run_conformance(conformance_of(role, mutant.target), stop_at_first=True), mutant.name


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("role", roles())
def test_mutants_are_caught_and_every_check_catches_one(role, capsys):
    found = survey(role)
    with capsys.disabled():
        sys.stdout.write(f"\n{found.row()}\n")
    assert len(found.escaped) <= 0.05 * len(found.caught), found.escaped
    assert found.dead == []
    assert found.row() in PAGE, f"put this row into docs/conformance.md:\n{table_head()}\n{found.row()}"


def test_the_page_lists_every_check_with_its_sentence():
    lacking = [line for line in check_tables().splitlines() if line not in PAGE.splitlines()]
    assert not lacking, "run `python -m tian.testing.mutants --checks`; docs/conformance.md lacks:\n" + "\n".join(
        lacking
    )


@pytest.mark.parametrize("role", roles())
def test_the_numbers_in_the_table_of_mutants_are_current(role):
    row = re.search(rf"^\| {role} \| (\d+) \| (\d+) \| (\d+) \| none \|$", PAGE, re.M)
    assert row, f"no row of {role} in docs/conformance.md"
    assert [int(row[1]), int(row[2])] == [len(checks_of(conformance_of(role))), len(mutants_of(role))]


def test_the_roles_page_cites_every_check_and_no_other():
    cited = set(re.findall(r"\b(?:all|md|pl|kv|sp|rm|so|ev)\d\d\b", (DOCS / "roles.md").read_text(encoding="utf-8")))
    assert cited == {c.id for role in roles() for c in checks_of(conformance_of(role))}
