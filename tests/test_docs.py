"""The documentation against the code: nothing public is left out, and the guide for authors runs as printed."""

import inspect
import json
import re
import tomllib
from pathlib import Path

import pytest

import tian
from tian import errors
from tian.cli.main import main
from tian.plugins.hookspecs import ROLES, known_hooks
from tian.plugins.registry import get_registry, role_class

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
KVCACHE = ROOT / "plugins" / "kvcache" / "README.md"
GENCO = ROOT / "plugins" / "genco" / "README.md"
CORE = ROOT / "core" / "README.md"
PAGES = [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md")), GENCO, KVCACHE, CORE]
ERRORS = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.TianError)]


def read(path):
    return path.read_text(encoding="utf-8")


def section(text, title):
    """The part of a page below the heading `title`, up to the next heading of any level."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", text, re.M | re.S)
    assert found, f"no section {title!r}"
    return found[1]


def show(name, capsys):
    assert main(["show", name, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


# -- completeness ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", sorted(known_hooks()))
def test_every_hook_is_described_with_its_arguments(hook):
    arguments = ", ".join(inspect.signature(known_hooks()[hook]).parameters)
    assert f"`{hook}({arguments})`" in read(DOCS / "hooks.md")


@pytest.mark.parametrize("role", ROLES)
def test_every_method_of_a_role_is_described(role):
    text = section(read(DOCS / "roles.md"), f"{role}")
    methods = [n for n, f in vars(role_class(role)).items() if inspect.isfunction(f) and not n.startswith("_")]
    assert methods
    assert [m for m in methods if f"`{m}" not in text] == []


def test_every_exit_code_and_error_class_is_in_the_table():
    text = read(DOCS / "exit-codes.md")
    rows = {int(m[1]): m[0] for m in re.finditer(r"^\| (\d+) \|.*$", text, re.M)}
    assert set(rows) == {0, 1, 130, 143} | {e.exit_code for e in ERRORS}
    for error in ERRORS:
        assert f"`{error.__name__}`" in rows[error.exit_code], error.__name__


def default_text(value):
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def option_rows(name, capsys):
    """The rows of the options table as the documentation must have them."""
    rows = []
    for o in show(name, capsys)["options"]:
        default = o["default"]["use"].split("/")[1] if isinstance(o["default"], dict) else default_text(o["default"])
        rows.append(f"| `{o['name']}` | {default} | {o['doc']} |")
    return rows


@pytest.mark.parametrize(("name", "page"), [("kvcache/stream", KVCACHE), ("lm/train", CORE)])
def test_every_option_of_a_run_is_listed_with_its_default(name, page, capsys):
    lacking = [row for row in option_rows(name, capsys) if row not in section(read(page), f"Options of `{name}`")]
    assert not lacking, f"put these rows into {page}, Options of {name}:\n" + "\n".join(lacking)


def test_every_policy_is_described_with_its_options(capsys):
    text = read(KVCACHE)
    names = [e.qualified for e in get_registry().entries("kv_policy") if e.plugin == "kvcache"]
    assert names
    for name in names:
        assert f"`{name}`" in text
        rows = option_rows(name, capsys)
        lacking = [row for row in rows if row not in section(text, f"Options of `{name}`")]
        assert not lacking, f"put these rows into {KVCACHE}, Options of {name}:\n" + "\n".join(lacking)


# -- the pages themselves --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)[^)]*\)", read(page)):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", sorted((DOCS / "adr").glob("*.md")), ids=lambda p: p.stem)
def test_a_decision_fits_on_a_page_and_says_when_to_revisit_it(page):
    lines = read(page).splitlines()
    assert len(lines) <= 40
    headings = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert headings == ["Context", "Decision", "Alternatives", "Consequences", "Revisit when"]


# -- the guide for authors -------------------------------------------------------------------------------------------


def blocks(page):
    """File name -> content of every code block whose first line is a comment with a path."""
    found = re.findall(r"^```(?:python|toml|yaml)\n# (\S+)\n(.*?)^```", read(page), re.M | re.S)
    return {name: f"# {name}\n{text}" for name, text in found}


def test_the_one_file_plugin_runs_as_printed(plugin_file):
    path = plugin_file(blocks(DOCS / "authors.md")["try_recency.py"], name="try_recency")
    registry = get_registry(extra_files=[path])
    info = next(p for p in registry.plugins if p.name == "try_recency")
    assert (info.state, info.problems) == ("loaded", [])
    assert registry.load("kv_policy", "recency", budget=7).capacity(0, 1, None) == 7


def test_the_authors_guide_runs_as_printed(install_plugin, tmp_path):
    files = blocks(DOCS / "authors.md")
    project = tomllib.loads(files["pyproject.toml"])["project"]
    modules = {name.removeprefix("src/"): text for name, text in files.items() if name.startswith("src/")}
    install_plugin(
        project["name"],
        version=project["version"],
        modules={"tian_recency/__init__.py": "", **modules},
        entry_points=project["entry-points"]["tian.plugins"],
        requires=tuple(project["dependencies"]),
    )
    info = next(p for p in get_registry().plugins if p.name == "recency")
    assert (info.state, info.problems) == ("loaded", [])
    code = compile(files["tests/test_recency.py"], "docs/authors.md", "exec")
    tests = {}
    exec(code, tests)
    names = [n for n in tests if n.startswith("test_")]
    assert len(names) == 5
    for name in names:
        arguments = {"tmp_path": tmp_path} if "tmp_path" in inspect.signature(tests[name]).parameters else {}
        tests[name](**arguments)


def test_the_claim_of_the_guide_is_well_formed_and_holds(install_plugin, tmp_path):
    files = blocks(DOCS / "authors.md")
    modules = {name.removeprefix("src/"): text for name, text in files.items() if name.startswith("src/")}
    install_plugin(
        "tian-plugin-recency",
        modules={"tian_recency/__init__.py": "", **modules},
        entry_points={"recency": "tian_recency.plugin"},
    )
    from tian.claims.engine import take
    from tian.claims.plan import differing_groups
    from tian.claims.stats import meets

    found = {}
    exec(compile(blocks(DOCS / "claims.md")["src/tian_recency/claims.py"], "docs/claims.md", "exec"), found)
    (claim,) = found["CLAIMS"]
    check = claim.checks["tiny"]
    assert differing_groups(check) == ["kv"]
    met = []
    for more in ((), check.control):
        result = tian.run(check.config, [*check.overrides, *more], folder=tmp_path / f"run{len(met)}")
        met.append(meets(check.holds, [take(check, [m.as_dict() for m in result.measurements])]))
    assert met == [True, False]
