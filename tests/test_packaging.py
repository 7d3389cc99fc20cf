"""The wheels work outside the checkout: they hold what they need and depend on nobody else's `tian`."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECTS = {
    "tian_framework": "core",
    "tian_kernels": "kernels",
    "tian_plugin_genco": "plugins/genco",
    "tian_plugin_kvcache": "plugins/kvcache",
    "tian_suite": ".",
}
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache")
MODEL = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "card.json")

pytestmark = pytest.mark.timeout(300)


def left_out(folder, names):
    """What git ignores; `runs` at the top only, a package has that name too."""
    return LEFT_OUT(folder, names) | ({"runs"} if Path(folder) == ROOT else set())


def call(*argv, **more):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False, timeout=200, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Distribution -> its wheel, built from a copy of the tree."""
    folder = tmp_path_factory.mktemp("wheels")
    tree = shutil.copytree(ROOT, folder / "tree", ignore=left_out)
    call(
        *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"),
        *("--disable-pip-version-check", "-w", folder),
        *(tree / place for place in PROJECTS.values()),
    )
    found = {path.name.split("-")[0]: path for path in folder.glob("*.whl")}
    assert sorted(found) == sorted(PROJECTS)
    return found


@pytest.fixture(scope="module")
def outside(wheels, tmp_path_factory):
    """A virtual environment with the wheels, the libraries of this one, and a way to run its `tian`."""
    folder = tmp_path_factory.mktemp("outside")
    call(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    call(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "-q"),
        *("--disable-pip-version-check", *wheels.values()),
    )
    site = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # Behind its own packages: a .pth file adds a folder without running the .pth files of the checkout in it.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "TIAN", "VIRTUAL_ENV"))}
    work = folder / "work"
    work.mkdir()

    def run(*argv):
        return call(folder / "venv" / "bin" / argv[0], *argv[1:], cwd=work, env=env | {"OMP_NUM_THREADS": "1"})

    run.site, run.work = site, work
    return run


def test_wheels_hold_configs_type_marker_and_model(wheels):
    core = set(zipfile.ZipFile(wheels["tian_framework"]).namelist())
    assert {f"tian/hf/assets/small-lm/{name}" for name in MODEL} <= core
    assert {"tian/py.typed", "tian/hf/conf/train.yaml", "tian/testing/plugin.py"} <= core
    plugin = set(zipfile.ZipFile(wheels["tian_plugin_kvcache"]).namelist())
    source = ROOT / "plugins" / "kvcache" / "src"
    configs = {p.relative_to(source).as_posix() for p in source.rglob("*.yaml")}
    assert configs
    assert configs | {"tian_kvcache/py.typed"} <= plugin
    for names in (core, plugin):
        assert not [n for n in names if "/tests/" in n or n.startswith(("tests/", "docs/", "benchmarks/"))]


def test_no_code_is_left_out_of_the_wheels(wheels):
    for name, place, package in (
        ("tian_framework", "core", "tian"),
        ("tian_plugin_kvcache", "plugins/kvcache", "tian_kvcache"),
        ("tian_plugin_genco", "plugins/genco", "tian_genco"),
    ):
        source = ROOT / place / "src"
        code = {p.relative_to(source).as_posix() for p in (source / package).rglob("*.py")}
        assert code <= set(zipfile.ZipFile(wheels[name]).namelist())


def test_the_core_wheel_holds_templates_and_promises(wheels):
    names = zipfile.ZipFile(wheels["tian_framework"]).namelist()
    assert {"tian/templates/plugin/shared/pyproject.toml.tpl", "tian/claims/promises.toml"} <= set(names)


def test_the_suite_has_no_code_of_its_own(wheels):
    names = zipfile.ZipFile(wheels["tian_suite"]).namelist()
    assert [n for n in names if ".dist-info/" not in n] == []


def test_no_wheel_depends_on_a_stranger_s_tian(wheels):
    for path in wheels.values():
        archive = zipfile.ZipFile(path)
        (file,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        meta = Parser().parsestr(archive.read(file).decode())
        needed = {Requirement(r).name.lower().replace("_", "-") for r in meta.get_all("Requires-Dist") or []}
        assert needed
        assert not needed & {"tian", "tian-core"}
        assert meta["Name"].replace("-", "_") in PROJECTS
        assert meta["License-Expression"] == "Apache-2.0"


def test_outside_the_checkout_it_is_the_wheels_that_run(outside):
    code = "import tian, tian_kvcache.plugin as p; print(tian.__file__); print(p.__file__)"
    files = [Path(line) for line in outside("python", "-c", code).split()]
    assert files == [outside.site / "tian" / "__init__.py", outside.site / "tian_kvcache" / "plugin.py"]


def test_outside_the_checkout_the_commands_answer(outside):
    plugins = {p["name"]: p for p in json.loads(outside("tian", "plugins", "--json"))}
    assert {"lm", "genco", "kvcache"} <= set(plugins)
    assert all(p["state"] == "loaded" and not p["problems"] for p in plugins.values())
    listed = outside("tian", "list")
    assert all(name in listed for name in ("kvcache/streaming", "kvcache/demo", "lm/train"))
    assert "BAD" not in outside("tian", "doctor")  # exit code 0


def test_outside_the_checkout_a_run_leaves_its_report(outside):
    argv = ["tokens=64", "streams=1", "compare=[window]", "kv.recent=8", "threads=1", "--json"]
    found = json.loads(outside("tian", "run", "kvcache/stream", *argv))
    assert {m["name"] for m in found["measurements"]} >= {"perplexity", "cache"}
    report = outside.work / found["report"]
    assert report.is_relative_to(outside.work / "runs" / "kvcache" / "stream")
    assert "tian run kvcache/stream tokens=64" in report.read_text(encoding="utf-8")
