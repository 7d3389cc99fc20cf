"""`tian new-plugin`: what it writes works, installs without a network, and passes its own tests before any edit."""

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import tian
import tian_kvcache
from tian.cli.main import main
from tian.plugins.hookspecs import ROLES
from tian.plugins.registry import get_registry

ROOT = Path(__file__).parents[1]
NAMES = {role: f"new-{role.replace('_', '-')}" for role in ROLES}
COPIES = {f"copied-{name}": f"kvcache/{name}" for name in ("window", "full", "streaming")}
BASICS = {"pyproject.toml", "README.md", "CHANGELOG.md", ".gitignore", ".github/workflows/ci.yml"}

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch, fresh_registry):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def call(*argv, **more):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False, timeout=500, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def package(name):
    return f"tian_{name.replace('-', '_')}"


def sandbox(folder):
    """A throw-away virtual environment with the libraries and the tian of this one: `(python, run)`."""
    call(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    site = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # Behind its own packages: a .pth file adds a folder without running the .pth files in it.
    paths = [sysconfig.get_path("purelib"), *(Path(m.__file__).parents[1] for m in (tian, tian_kvcache))]
    (site / "libraries.pth").write_text("".join(f"{p}\n" for p in paths))
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "TIAN", "VIRTUAL_ENV"))}
    env |= {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}

    def run(*argv):
        return call(python, "-m", *argv, cwd=folder, env=env)

    def install(*places):
        call(
            *(sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "-q"),
            *("--no-build-isolation", "--no-index", "--no-deps", *(a for p in places for a in ("-e", p))),
            env=env,
        )

    run.install = install
    return run


@pytest.fixture(scope="module")
def seven(tmp_path_factory):
    """A plugin of each role, written and installed: `(folder, run)`."""
    folder = tmp_path_factory.mktemp("seven")
    run = sandbox(folder)
    for role, name in NAMES.items():
        run("tian", "new-plugin", name, "--role", role)
    run.install(*(folder / f"tian-plugin-{name}" for name in NAMES.values()))
    return folder, run


def write(name, *argv):
    assert main(["new-plugin", name, *argv]) == 0
    return Path(f"tian-plugin-{name}")


# -- what it writes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_it_writes_a_complete_package(role, capsys):
    name = NAMES[role]
    folder = write(name, "--role", role)
    listed = {line.strip() for line in capsys.readouterr().out.splitlines()}
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert files <= listed
    inside = {f.removeprefix(f"src/{package(name)}/") for f in files if f.startswith("src/")}
    assert BASICS | {"tests/test_conformance.py", "tests/test_demo.py"} <= files
    assert {"__init__.py", "plugin.py", "options.py", "demo.py", "demo_options.py", "claims.py"} <= inside
    assert {"conf/demo.yaml", "py.typed"} <= inside
    left = [f for f in files if "@@" in f or "PACKAGE" in f or "@@" in (folder / f).read_text()]
    assert left == []
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["name"] == f"tian-plugin-{name}"
    assert project["project"]["license"] == "Apache-2.0"
    (needed,) = project["project"]["dependencies"]
    assert needed.replace("[hf]", "") == "tian-framework>=0.1,<1"
    assert project["project"]["entry-points"]["tian.plugins"] == {name: f"{package(name)}.plugin"}
    assert "conf/**/*.yaml" in project["tool"]["setuptools"]["package-data"][package(name)]


def lint(folder, name):
    first = f"lint.isort.known-first-party=['tian', '{package(name)}']"
    ruff = [sys.executable, "-m", "ruff"]
    call(*ruff, "check", "--no-cache", "--config", ROOT / "pyproject.toml", "--config", first, folder)
    call(*ruff, "format", "--check", "--no-cache", "--config", ROOT / "pyproject.toml", folder)


@pytest.mark.parametrize("length", [1, 12, 30])
def test_the_code_meets_the_rules_of_this_repository_whatever_the_length_of_the_name(length):
    for role in ROLES:
        name = ("n" + "abcdefghi-" * 4)[: length - 1] + "z"
        folder = write(name, "--role", role, "--dir", role)
        lint(Path(role), name)
        assert not folder.exists()


def test_the_code_passes_the_type_checker(seven):
    folder, _ = seven
    paths = [str(folder / f"tian-plugin-{n}" / "src") for n in NAMES.values()]
    env = os.environ | {"MYPYPATH": os.pathsep.join([*paths, str(ROOT / "core" / "src")])}
    packages = [a for n in NAMES.values() for a in ("-p", package(n))]
    call(sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", *packages, cwd=ROOT, env=env)


def test_a_class_that_would_hide_one_of_tian_gets_another_name():
    folder = write("planner", "--role", "planner")
    assert "class MyPlanner(Planner):" in (folder / "src/tian_planner/planner.py").read_text()
    folder = write("two-words", "--role", "planner")
    assert "class TwoWords(Planner):" in (folder / "src/tian_two_words/planner.py").read_text()


def test_it_says_what_to_do_next_and_json_lists_the_files(capsys):
    write("first", "--role", "solver", "--dir", "a folder/here")
    steps = [line.strip() for line in capsys.readouterr().out.splitlines()[-3:]]
    assert steps == ["cd 'a folder/here'", "pip install --no-build-isolation -e .", "pytest"]
    write("second", "--role", "solver", "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["dir"], found["plugin"], found["role"]) == ("tian-plugin-second", "second", "solver")
    assert all((Path(found["dir"]) / f).is_file() for f in found["files"])
    assert len(found["files"]) == 16
    assert found["next"][0] == "cd tian-plugin-second"


def test_an_empty_folder_may_be_there_already():
    Path("tian-plugin-early").mkdir()
    assert (write("early", "--role", "solver") / "pyproject.toml").is_file()


def test_writing_imports_nothing_heavy():
    code = (
        "import sys; from tian.cli.main import main; code = main(['new-plugin', 'light', '--role', 'model'])\n"
        "print(code, [m for m in ('torch', 'numpy', 'omegaconf', 'rich', 'yaml') if m in sys.modules])"
    )
    assert call(sys.executable, "-c", code).splitlines()[-1] == "0 []"


# -- what it writes works --------------------------------------------------------------------------------------------


def test_the_seven_load_without_a_problem(seven):
    _, run = seven
    plugins = {p["name"]: p for p in json.loads(run("tian", "plugins", "--json"))}
    for role, name in NAMES.items():
        assert (plugins[name]["state"], plugins[name]["problems"]) == ("loaded", [])
        assert plugins[name]["version"] == "0.1.0"
        assert f"{role}:{name}/{name}" in plugins[name]["provides"]


def test_the_tests_of_the_seven_pass_before_the_first_edit(seven):
    folder, run = seven
    out = run(
        "pytest",
        "-q",
        "--import-mode=importlib",
        "-p",
        "no:cacheprovider",
        "-W",
        "error",
        *sorted(folder.glob("tian-*")),
    )
    assert " passed" in out
    assert "failed" not in out


def test_a_spoilt_component_fails_its_tests(seven, tmp_path):
    folder, run = seven
    file = folder / "tian-plugin-new-kv-policy" / "src" / "tian_new_kv_policy" / "policy.py"
    good = file.read_text()
    file.write_text(good.replace("(rank == 0)", "(rank == 1)"))  # not the oldest
    try:
        with pytest.raises(AssertionError, match="victim"):
            run(
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "-x",
                "-k",
                "kv and victim",
                folder / "tian-plugin-new-kv-policy",
            )
    finally:
        file.write_text(good)


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
def test_the_claim_holds_and_its_control_fails(seven, role):
    _, run = seven
    (claim,) = json.loads(run("tian", "claims", NAMES[role], "--json"))["claims"]
    assert claim["verdict"] == "holds"


# -- from a component ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "source"), COPIES.items())
def test_a_copy_holds_the_source_under_the_new_name_and_names_its_origin(name, source):
    folder = write(name, "--from", source)
    code = (folder / "src" / package(name) / "policies.py").read_text()
    old = (Path(tian_kvcache.__file__).parent / "policies.py").read_text()
    assert code == old.replace("tian_kvcache", package(name))
    assert "tian_kvcache" not in (folder / "src" / package(name) / "options.py").read_text()
    readme = (folder / "README.md").read_text()
    assert f"`{source}` of tian-plugin-kvcache {version('tian-plugin-kvcache')} (licence: Apache-2.0)" in readme
    lint(folder, name)


def test_a_role_that_fits_may_be_given_beside_a_source():
    assert (write("both", "--from", "streaming", "--role", "kv_policy") / "src/tian_both/policies.py").is_file()


def test_all_modules_of_its_package_a_component_needs_are_copied(install_plugin, capsys):
    modules = {
        "pack/__init__.py": "",
        "pack/plugin.py": "from tian import hookimpl\n@hookimpl\ndef tian_register_solvers(register):\n"
        "    register('deep', 'pack.inner.claims:Deep', summary='say \"hi\" \\\\', needs=('json', 'torch'))\n",
        "pack/inner/__init__.py": "",
        "pack/inner/claims.py": "import json\nfrom . import helper\nfrom ..plain import (\n    VALUE,\n)\n"
        "from tian.testing.fakes import FakeSolver\nclass Deep(FakeSolver):\n    value = helper.TWO + VALUE\n",
        "pack/inner/helper.py": "from pack.plain import VALUE as TWO\n",
        "pack/plain.py": "VALUE = 1\n",
    }
    install_plugin(
        "dist-pack", modules=modules, entry_points={"pack": "pack.plugin"}, requires=("tian-framework>=0.1", "six")
    )
    folder = write("shallow", "--from", "pack/deep")
    inside = folder / "src" / "tian_shallow"
    assert (inside / "inner_claims.py").read_text() == (
        "import json\nfrom tian_shallow import inner_helper as helper\nfrom tian_shallow.plain import (\n    VALUE,\n)\n"
        "from tian.testing.fakes import FakeSolver\nclass Deep(FakeSolver):\n    value = helper.TWO + VALUE\n"
    )
    assert (inside / "inner_helper.py").read_text() == "from tian_shallow.plain import VALUE as TWO\n"
    assert "VALUE = 1" in (inside / "plain.py").read_text()
    plugin = (inside / "plugin.py").read_text()
    assert '"tian_shallow.inner_claims:Deep"' in plugin
    assert 'needs=("json", "torch"),' in plugin
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == ["tian-framework>=0.1,<1", "six"]
    assert "licence: not stated" in (folder / "README.md").read_text()
    compile(plugin, "plugin.py", "exec")
    compile((inside / "__init__.py").read_text(), "__init__.py", "exec")


@pytest.mark.parametrize(
    ("register", "cause"),
    [
        ("register('it', FakeSolver, summary='s')", "it is registered as an object"),
        ("register('it', 'itertools:count', summary='s')", "there is no source file of the module itertools"),
        ("register('it', 'no_such_thing:It', summary='s')", "there is no source file of the module no_such_thing"),
        ("register('it', 'tian.testing.fakes:FakeSolver', summary='s')", "it is part of tian itself"),
    ],
)
def test_what_cannot_be_copied_is_refused_with_the_cause(install_plugin, capsys, register, cause):
    source = (
        "from tian import hookimpl\nfrom tian.plugins.registrar import Registrar as FakeSolver\n"
        f"@hookimpl\ndef tian_register_solvers(register):\n    {register}\n"
    )
    install_plugin("dist-odd", modules={"odd_plug.py": source}, entry_points={"odd": "odd_plug"})
    assert main(["new-plugin", "copy", "--from", "odd/it"]) == 5
    err = capsys.readouterr().err
    assert f"odd/it cannot be copied: {cause}" in err
    assert "dist-odd 1.0" in err
    assert list(Path().iterdir()) == []


@pytest.mark.slow
def test_copies_pass_their_tests_before_the_first_edit(seven):
    folder, run = seven
    copies = COPIES | {f"again-{name}": f"{name}/{name}" for name in NAMES.values()}
    for name, source in copies.items():
        run("tian", "new-plugin", name, "--from", source)
    places = [folder / f"tian-plugin-{name}" for name in copies]
    run.install(*places)
    assert " passed" in run("pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", "-W", "error", *places)
    (claim,) = json.loads(run("tian", "claims", "copied-full", "--json"))["claims"]
    assert claim["verdict"] == "holds"


# -- what it refuses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["fine"], 2, "neither --role nor --from"),
        (["fine", "--role", "poet"], 2, "invalid choice: 'poet'"),
        (
            ["fine", "--role", "solver", "--from", "kvcache/window"],
            2,
            "--role solver contradicts --from kvcache/window",
        ),
        (["fine", "--from", "kvcache/windwo"], 2, "did you mean 'kvcache/window'?"),
        (["fine", "--from", "kvcache/stream"], 2, "no component is called 'kvcache/stream'"),
        (["Upper", "--role", "solver"], 5, "small letters"),
        (["1st", "--role", "solver"], 5, "a letter first"),
        (["a_b", "--role", "solver"], 5, "single hyphens"),
        (["a--b", "--role", "solver"], 5, "single hyphens"),
        (["a-", "--role", "solver"], 5, "single hyphens"),
        (["été", "--role", "solver"], 5, "'été' is not a name"),
        (["../up", "--role", "solver"], 5, "'../up' is not a name"),
        (["", "--role", "solver"], 5, "'' is not a name"),
        (["a" * 31, "--role", "solver"], 5, "at most 30"),
        (["class", "--role", "solver"], 5, "'class' is a word of Python"),
        (["match", "--role", "solver"], 5, "call it my-match"),
        (["tian-thing", "--role", "solver"], 5, "tian new-plugin thing"),
        (["tian-plugin-thing", "--role", "solver"], 5, "tian new-plugin thing"),
        (["tian", "--role", "solver"], 5, "begins with tian"),
        (["kvcache", "--role", "solver"], 5, "installed already: tian-plugin-kvcache"),
        (["lm", "--role", "solver"], 5, "installed already: tian-framework"),
        (["fine", "--role", "solver", "--dir", "full"], 5, "not empty (it holds mine.txt); nothing was changed"),
        (["fine", "--role", "solver", "--dir", "full/mine.txt"], 5, "mine.txt is a file"),
        (["fine", "--role", "solver", "--dir", "full/mine.txt/deeper"], 5, "mine.txt is a file"),
        (["fine", "--role", "solver", "--dir", "/proc/nowhere"], 5, "cannot write /proc/nowhere"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_touched(argv, code, says, capsys):
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    assert main(["new-plugin", *argv]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert "\n  where: " in err
    assert "\n  do:    " in err
    assert [p.as_posix() for p in sorted(Path().rglob("*"))] == ["full", "full/mine.txt"]
    assert Path("full/mine.txt").read_text() == "mine"


def test_a_module_of_that_name_is_not_hidden(install_plugin, capsys):
    install_plugin("dist-other", modules={"tian_taken.py": ""}, entry_points={"other": "tian_taken"})
    assert main(["new-plugin", "taken", "--role", "solver"]) == 5
    assert "'tian_taken' is installed already" in capsys.readouterr().err


def test_an_error_half_way_leaves_nothing_behind(monkeypatch, capsys):
    real = Path.write_text

    def full(self, *args, **options):
        if self.name == "plugin.py":
            raise OSError(28, "No space left on device", str(self))
        return real(self, *args, **options)

    monkeypatch.setattr(Path, "write_text", full)
    assert main(["new-plugin", "fine", "--role", "solver"]) == 5
    assert "No space left on device" in capsys.readouterr().err
    assert list(Path().iterdir()) == []


def test_components_of_the_installed_plugins_are_found_by_their_short_names(fresh_registry):
    from tian.cli.scaffold_copy import find

    assert find("streaming") is next(e for e in get_registry().entries("kv_policy") if e.name == "streaming")
