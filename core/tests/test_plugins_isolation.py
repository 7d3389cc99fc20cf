"""One bad plugin never takes another down, and each is named with its cause and a remedy."""

from __future__ import annotations

import pytest

from tian.errors import PluginError, UnknownName
from tian.plugins.registry import get_registry

GOOD = """
from tian import hookimpl

@hookimpl
def tian_register_solvers(register):
    register("choose", "tian.testing.fakes:FakeSolver", summary="choose k items")
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def install(install_plugin):
    """Install a one-module plugin `name` beside a good one; returns its PluginInfo."""
    install_plugin("dist-zgood", modules={"zgood_plug.py": GOOD}, entry_points={"zgood": "zgood_plug"})

    def one(source, *, name="bad", requires=("tian-framework>=0.1",)):
        install_plugin(
            f"dist-{name}", modules={f"{name}_plug.py": source}, entry_points={name: f"{name}_plug"}, requires=requires
        )
        registry = get_registry()
        assert registry.resolve("solver", "zgood/choose").dist == "dist-zgood"  # whatever the bad one did
        return next(p for p in registry.plugins if p.name == name)

    return one


def test_a_missing_import_names_the_line_and_no_made_up_pip_package(install):
    info = install("import os\nimport no_such_library\n")
    assert info.state == "broken"
    (problem,) = info.problems
    assert "no_such_library" in problem.message
    assert problem.where.endswith("bad_plug.py:2")
    assert "pip install no_such_library" not in problem.hint
    assert "dist-bad" in problem.hint
    assert "TIAN_DISABLE_PLUGINS=bad" in problem.hint


def test_a_plugin_that_misses_a_part_of_tian_is_never_told_to_install_the_stranger_called_tian(install):
    info = install("import tian.no_such_part\n")
    assert "pip install -U tian-framework" in info.problems[0].hint


def test_a_plugin_that_exits_on_import_does_not_end_the_program(install):
    info = install("raise SystemExit(3)\n")
    assert info.state == "broken"
    assert "SystemExit: 3" in info.problems[0].message


def test_a_syntax_error_names_its_line(install):
    info = install("x = 1\ndef broken(:\n")
    assert info.state == "broken"
    assert info.problems[0].where.endswith("bad_plug.py:2")


def test_a_plugin_for_a_newer_tian_is_refused_before_it_is_imported(install):
    info = install("raise RuntimeError('imported')\n", requires=("numpy", "tian_framework>=99"))
    assert info.state == "incompatible"
    assert "tian_framework>=99" in info.problems[0].message
    assert "tian-framework 0.1.0" in info.problems[0].message
    assert info.problems[0].where.endswith("dist_bad-1.0.dist-info/METADATA:5")


def test_a_requirement_for_another_python_does_not_count(install):
    info = install(GOOD, requires=('tian-framework>=99; python_version < "3"', "tian-framework>=0.1"))
    assert info.state == "loaded"


def test_a_misspelt_hook_is_reported_with_the_nearest_name_and_the_rest_works(install):
    info = install(GOOD + "\n@hookimpl\ndef tian_register_kv_polices(register):\n    pass\n")
    assert info.state == "loaded"
    (problem,) = info.problems
    assert "tian_register_kv_polices" in problem.message
    assert problem.hint == "did you mean tian_register_kv_policies?"
    assert [e.name for e in info.entries] == ["choose"]


def test_an_optional_hook_of_a_newer_tian_is_legal(install):
    info = install(GOOD + "\n@hookimpl(optionalhook=True)\ndef tian_register_dreams(register):\n    pass\n")
    assert info.problems == []


def test_a_hook_without_its_mark_is_reported(install):
    info = install("def tian_register_solvers(register):\n    pass\n")
    assert "never called" in info.problems[0].message
    assert "@hookimpl" in info.problems[0].hint


def test_what_a_raising_hook_had_registered_is_dropped_and_its_other_hooks_stay(install):
    info = install(
        GOOD
        + """
@hookimpl
def tian_register_models(register):
    register("half", "tian.testing.fakes:FakeModel", summary="never to be seen")
    1 / 0
"""
    )
    assert info.state == "loaded"
    assert [e.qualified for e in info.entries] == ["bad/choose"]
    (problem,) = info.problems
    assert "in tian_register_models: ZeroDivisionError" in problem.message
    assert problem.where.endswith("bad_plug.py:11")


def test_an_argument_no_hook_has_breaks_only_its_plugin(install):
    info = install("from tian import hookimpl\n@hookimpl\ndef tian_register_models(register, extra):\n    pass\n")
    assert info.state == "broken"
    assert "{'extra'}" in info.problems[0].message
    assert info.problems[0].where.endswith("bad_plug.py:2")


def test_an_entry_point_with_an_attribute_is_explained(install_plugin):
    install_plugin("dist-attr", modules={"attr_plug.py": GOOD}, entry_points={"attr": "attr_plug:thing"})
    info = next(p for p in get_registry().plugins if p.name == "attr")
    assert "must name a module" in info.problems[0].message


def test_damaged_metadata_is_one_broken_plugin(install_plugin):
    folder = install_plugin("dist-torn", modules={"torn_plug.py": GOOD}, entry_points={"torn": "torn_plug"})
    (folder / "dist_torn-1.0.dist-info" / "entry_points.txt").write_text("[tian.plugins]\ntorn\n")
    registry = get_registry()
    assert "lm" in {p.name for p in registry.plugins if p.state == "loaded"}
    info = next(p for p in registry.plugins if p.name == "dist-torn")
    assert info.state == "broken"
    assert "metadata cannot be read" in info.problems[0].message


def test_a_heavy_import_is_a_warning_with_the_line_that_asked_for_it(install, monkeypatch):
    import sys

    monkeypatch.delitem(sys.modules, "trl", raising=False)
    info = install("import sys\ntry:\n    import trl\nexcept ImportError:\n    pass\n" + GOOD)
    assert info.state == "loaded"
    (problem,) = info.problems
    assert problem.severity == "warning"
    assert "trl" in problem.message
    assert problem.where.endswith("bad_plug.py:3")


def test_what_a_plugin_prints_does_not_reach_stdout(install, capsys):
    install("print('hello')\n" + GOOD)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "hello" in captured.err


def test_an_unknown_name_quotes_the_cause_of_the_broken_plugin_that_might_have_it(install):
    install("import no_such_library\n")
    with pytest.raises(UnknownName, match=r"plugin bad is broken.*no_such_library"):
        get_registry().resolve("solver", "bad/anything")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import no_such_library\n", ModuleNotFoundError),
        (GOOD + "\n@hookimpl\ndef tian_register_typo(register):\n    pass\n", PluginError),
        (GOOD + "\n@hookimpl\ndef tian_register_models(register):\n    1 / 0\n", ZeroDivisionError),
    ],
)
def test_strict_mode_lets_the_first_error_out(install_plugin, monkeypatch, source, error):
    install_plugin("dist-bad", modules={"bad_plug.py": source}, entry_points={"bad": "bad_plug"})
    monkeypatch.setenv("TIAN_STRICT", "1")
    with pytest.raises(error):
        get_registry()


def test_a_failing_report_hook_is_isolated_and_recorded(install, caplog):
    info = install(GOOD + "\n@hookimpl\ndef tian_doctor_checks():\n    raise OSError('no disk')\n")
    results = list(get_registry().call_each("tian_doctor_checks"))
    assert "bad" not in dict(results)
    assert "in tian_doctor_checks: OSError: no disk" in info.problems[-1].message
    assert "no disk" in caplog.text
