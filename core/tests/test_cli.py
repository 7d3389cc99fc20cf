"""The command line: what it teaches, what goes to stdout, and what every outcome exits with."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tian.cli.main import COMMANDS, build_parser, main
from tian.plugins.hookspecs import ROLES


def test_help_teaches_with_examples_and_exit_codes(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in [*COMMANDS, "examples:", "exit codes:", "tian run kvcache/demo", "--resume"]:
        assert word in text


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example_that_parses(command, capsys):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    (example,) = [line.strip() for line in text.splitlines() if line.strip().startswith(f"tian {command}")]
    assert build_parser().parse_args(example.split()[1:]).command == command


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("tian 0.")


@pytest.mark.parametrize(
    "argv",
    [
        ["plugins"],
        ["plugins", "--fast"],
        ["list"],
        ["list", "kv_policy"],
        ["list", "run"],
        ["show", "kvcache/streaming"],
        ["show", "kv_policy"],
        ["show", "kvcache/stream"],
        ["config", "kvcache/stream"],
        ["config", "kvcache/stream", "--origin"],
        ["run", "kvcache/stream", "--dry-run"],
    ],
    ids=" ".join,
)
def test_json_is_json_and_text_is_not_empty(argv, capsys):
    assert main(argv) == 0
    assert capsys.readouterr().out.strip()
    assert main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_list_shows_components_recipes_and_runs(capsys):
    main(["list"])
    text = capsys.readouterr().out
    for name in ("kvcache/full", "kvcache/streaming", "kvcache/window", "lm/train", "kvcache/demo"):
        assert name in text


def test_show_gives_options_with_type_default_and_meaning(capsys):
    main(["show", "streaming"])
    text = capsys.readouterr().out
    assert "arXiv 2309.17453" in text
    assert any(
        line.split()[:3] == ["recent", "int", "252"] and "most recent tokens" in line for line in text.splitlines()
    )


def test_show_documents_every_option_of_what_ships(capsys):
    for name in ("kvcache/stream", "lm/train", "kvcache/window", "kvcache/streaming"):
        main(["show", name, "--json"])
        shown = json.loads(capsys.readouterr().out)
        for option in shown["options"]:
            assert option["doc"], f"{name}: {option['name']} has no documentation"


@pytest.mark.parametrize("role", ROLES)
def test_show_prints_the_contract_of_every_role(role, capsys):
    assert main(["show", role]) == 0
    assert f"role {role}: tian.spec." in capsys.readouterr().out


def test_origin_prints_file_lines_overrides_and_defaults(capsys):
    main(["config", "kvcache/stream", "kv.recent=63", "--origin"])
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "override 'kv.recent=63'" in rows["kv.recent"]
    assert "tian_kvcache/conf/kv/streaming.yaml:2" in rows["kv.sinks"]
    assert "default of tian_kvcache.options:StreamOptions" in rows["save_every"]


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        ([], 2, "required: COMMAND"),
        (["lst"], 2, "did you mean `tian list`?"),
        (["list", "kv_polcy"], 2, "did you mean 'kv_policy'?"),
        (["show", "streming"], 2, "streaming"),
        (["run"], 2, "RUN"),
        (["run", "kvcache/strem"], 2, "did you mean 'kvcache/stream'?"),
        (["run", "kvcache/stream", "kv=streamin"], 2, "did you mean"),
        (["plugins", "--nonsense"], 2, "--nonsense"),
    ],
)
def test_a_wrong_command_line_exits_with_2_and_a_remedy(argv, code, words, capsys):
    assert main(argv) == code
    captured = capsys.readouterr()
    assert not captured.out
    assert words in captured.err
    assert "Traceback" not in captured.err
    assert captured.err.startswith("error: ")


def test_a_bug_of_ours_exits_with_70_and_keeps_the_traceback_in_a_file(monkeypatch, capsys):
    import tian.cli.cmd_list

    def broken(args):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(tian.cli.cmd_list, "main", broken)
    assert main(["list"]) == 70
    text = capsys.readouterr().err
    assert "unexpected ZeroDivisionError" in text
    file = text.split("where: ")[1].splitlines()[0]
    assert "Traceback" in Path(file).read_text(encoding="utf-8")


def test_an_interruption_exits_with_130(monkeypatch, capsys):
    import tian.cli.cmd_list

    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(tian.cli.cmd_list, "main", interrupted)
    assert main(["list"]) == 130


def test_a_closed_pipe_is_no_error():
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{sys.executable} -m tian show kvcache/stream | true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_a_one_file_plugin_is_loaded_only_on_request(tmp_path, monkeypatch, capsys, fresh_registry):
    (tmp_path / "mine.py").write_text(
        "from tian import hookimpl\n"
        "@hookimpl\n"
        "def tian_register_kv_policies(register):\n"
        "    register('mine', 'tian.testing.fakes:FakeKVPolicy', summary='my own')\n"
    )
    monkeypatch.chdir(tmp_path)
    main(["list", "kv_policy"])
    assert "mine/mine" not in capsys.readouterr().out
    assert main(["-p", "mine.py", "list", "kv_policy"]) == 0
    assert "mine/mine" in capsys.readouterr().out


def test_doctor_is_content_here_and_reports_each_part(capsys):
    assert main(["doctor", "--json"]) == 0
    names = [c["name"] for c in json.loads(capsys.readouterr().out)]
    assert {"python", "torch", "device", "plugin lm", "plugin kvcache"} <= set(names)


def test_doctor_warns_of_strangers_with_our_name(install_plugin, capsys):
    install_plugin("tian-core", modules={}, entry_points={})
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "distribution tian-core" in text
    assert "pip uninstall tian-core" in text
