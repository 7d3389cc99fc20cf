"""Argument parsing, dispatch and the one place where exceptions become exit codes."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from tian import __version__
from tian.cli.console import err, out_json
from tian.errors import ConfigError, TianError

COMMANDS = {
    "plugins": "installed plugins, their state and what is wrong with any",
    "list": "components by role, recipes and runs",
    "show": "one component, role or run: contract, options with defaults",
    "config": "the complete configuration of a run, with the origin of each value",
    "run": "run something; results, plots and report.html land in a run directory",
    "report": "draw report.html of a run directory again, or compare several runs",
    "claims": "check the claims of the papers: each with a bar, a control that must fail, seeds and an interval",
    "new-plugin": "write a complete plugin package, with tests that pass, to start from",
    "doctor": "check the installation and each plugin in a process of its own",
}
ROLES = ("model", "planner", "kv_policy", "sparsity_predictor", "reward_model", "solver", "evaluator")
SCALES = ("tiny", "cpu", "gpu", "paper")
EPILOG = """\
examples:
  tian list                                  what is there to use
  tian show kvcache/streaming                what it does and its options
  tian run kvcache/demo                      the demo: endless streaming with a small model
  tian run kvcache/stream model.path=DIR text.path=FILE kv=streaming kv.sinks=4 kv.recent=252
  tian run kvcache/stream --resume last      continue after an interruption
  tian config kvcache/stream --origin        every option and where its value comes from
  tian claims                                do the papers' claims hold here?
  tian new-plugin recency --role kv_policy   a plugin of your own, tested, in one second

exit codes: 0 done, 1 done and the answer is no, 2 command line or config, 3 plugin, 4 missing
dependency or unsupported, 5 input, 6 run failed, 7 run busy or not resumable, 70 bug, 130 Ctrl-C,
143 terminated. `tian COMMAND --help` explains each command.
"""


class _Parser(argparse.ArgumentParser):
    """Errors become ConfigError, so that they look like all others and obey --json."""

    def error(self, message: str) -> NoReturn:
        hint = f"see `{self.prog} --help`"
        if "invalid choice" in message and self.prog == "tian":
            word = message.split("invalid choice: ")[1].split("'")[1]
            near = difflib.get_close_matches(word, COMMANDS, n=1)
            message = f"there is no command {word!r}"
            hint = f"did you mean `tian {near[0]}`?" if near else f"commands: {', '.join(COMMANDS)}"
        raise ConfigError(message, where="command line", hint=hint)


def build_parser() -> argparse.ArgumentParser:
    """The parser with all subcommands; none of their modules is imported."""
    parser = _Parser(
        prog="tian",
        description="tian runs methods from papers on your model, data and environment.\n"
        "Plugins bring the methods; every run leaves a directory with config, results and a report.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tian {__version__}")
    parser.add_argument(
        "-p", dest="plugin_files", metavar="FILE.py", action="append", default=[], help="also load this one-file plugin"
    )
    subs = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)

    def add(name: str, example: str) -> argparse.ArgumentParser:
        sub = subs.add_parser(
            name,
            help=COMMANDS[name],
            description=f"{COMMANDS[name][0].upper()}{COMMANDS[name][1:]}.",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--json", action="store_true", help="print the result (or the error) as JSON")
        return sub

    sub = add("plugins", "tian plugins --timing")
    sub.add_argument("--fast", action="store_true", help="read metadata only, import no plugin")
    sub.add_argument("--timing", action="store_true", help="show how long each plugin takes to import")
    sub = add("list", "tian list kv_policy")
    sub.add_argument("role", nargs="?", help="a role, `recipe` or `run`; all when left out")
    sub = add("show", "tian show streaming")
    sub.add_argument("name", help="a component (kvcache/streaming), a role (kv_policy) or a run (kvcache/stream)")
    sub = add("config", "tian config kvcache/stream kv=window --origin")
    sub.add_argument("name", metavar="RUN", help="plugin/run, or run while unambiguous")
    sub.add_argument("overrides", nargs="*", metavar="key=value", help="a.b=1, +new=1, ~gone, group=choice")
    sub.add_argument("--origin", action="store_true", help="print the file:line or override behind each value")
    sub = add("run", "tian run kvcache/stream kv=streaming kv.recent=63 tokens=4096")
    sub.add_argument("name", metavar="RUN", help="plugin/run, or run while unambiguous")
    sub.add_argument("overrides", nargs="*", metavar="key=value", help="a.b=1, +new=1, ~gone, group=choice")
    sub.add_argument(
        "--resume",
        nargs="?",
        const="last",
        metavar="DIR",
        help="continue this run directory (default: the newest of this run)",
    )
    sub.add_argument("--dir", metavar="DIR", help="write the run here instead of runs/<RUN>/<time>-<hash>")
    sub.add_argument("--dry-run", action="store_true", help="compose and check only; print the config")
    sub = add("report", "tian report runs/kvcache/demo/20260101T000000Z-0123456789ab")
    sub.add_argument("dirs", metavar="DIR", nargs="+", help="a run directory; with several, they are compared")
    sub.add_argument("--out", metavar="FILE", help="where the comparison goes (default: compare.html)")
    sub = add("claims", "tian claims kvcache --scale tiny")
    sub.add_argument("plugin", nargs="?", help="only the claims of this plugin")
    sub.add_argument("--scale", default="tiny", choices=SCALES, help="size of the checks (default: tiny)")
    sub.add_argument("--only", metavar="ID", action="append", default=[], help="only this claim; may be repeated")
    sub.add_argument("--jobs", metavar="N", type=int, help="checks run at once (default: the number of cores)")
    sub.add_argument("--list", action="store_true", help="show the claims and what is known of them; run nothing")
    sub.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    sub.add_argument("--store", action="store_true", help="keep the results in the plugin, with hardware and date")
    sub = add("new-plugin", "tian new-plugin recency --role kv_policy")
    sub.add_argument("name", metavar="NAME", help="of the plugin: small letters, digits, hyphens")
    sub.add_argument("--role", choices=ROLES, help="what it implements")
    sub.add_argument("--from", dest="source", metavar="PLUGIN/COMPONENT", help="start from this component's source")
    sub.add_argument("--dir", metavar="DIR", help="write here instead of ./tian-plugin-NAME")
    add("doctor", "tian doctor")
    return parser


def _parse(args: Sequence[str]) -> argparse.Namespace:
    """Parse; overrides may also follow an option (`tian run X --dry-run a=1`), where argparse alone loses them."""
    parser = build_parser()
    options, rest = parser.parse_known_args(args)
    strange = [a for a in rest if a.startswith("-") or not hasattr(options, "overrides")]
    if strange:
        parser.error(f"unrecognized arguments: {' '.join(strange)}")
    if rest:
        options.overrides.extend(rest)
    return options


def _terminate(_number: int, _frame: object) -> NoReturn:
    from tian.plugins.guard import Terminated

    raise Terminated(143)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, dispatch, and turn every outcome into an exit code."""
    args = sys.argv[1:] if argv is None else list(argv)
    as_json = "--json" in args
    with contextlib.suppress(ValueError):  # outside the main thread the caller owns the signals
        signal.signal(signal.SIGTERM, _terminate)
    options: argparse.Namespace | None = None
    try:
        options = _parse(args)
        _load_files(options.plugin_files)
        module = importlib.import_module(f"tian.cli.cmd_{options.command.replace('-', '_')}")
        code = module.main(options)
        sys.stdout.flush()
        return int(code)
    except TianError as error:
        error.where = error.where or f"command line: {shlex.join(['tian', *args])}"
        error.hint = error.hint or _fallback_hint(args)
        return _report(error, as_json=as_json)
    except KeyboardInterrupt:
        err("interrupted")
        return 130
    except BrokenPipeError:
        _mute_stdout()
        return 0
    except SystemExit as stop:
        if options is None or stop.code in (130, 143):  # --help and --version, or a signal
            return stop.code if isinstance(stop.code, int) else 0
        return _bug(stop, as_json=as_json)  # a recipe that exits has not finished, whatever code it gives
    except Exception as error:
        if os.environ.get("TIAN_STRICT") == "1":
            raise
        return _bug(error, as_json=as_json)


def _report(error: TianError, *, as_json: bool) -> int:
    """Print an error and return its exit code, also when nobody reads what is printed."""
    if as_json:
        try:
            out_json(error.as_dict())
            sys.stdout.flush()
        except BrokenPipeError:
            _mute_stdout()
    with contextlib.suppress(OSError):
        err("\n".join(error.lines()))
    return error.exit_code


def _mute_stdout() -> None:
    """Send what is still to be written to a closed pipe nowhere, or Python complains when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fallback_hint(args: Sequence[str]) -> str:
    """For an error that brings no remedy: where the options, or the arguments, are described."""
    words = [a for a in args if not a.startswith("-")]
    if len(words) > 1 and words[0] in ("run", "config"):
        return f"see `tian show {words[1]}` for every option and what it takes"
    return f"see `tian {words[0]} --help`" if words else "see `tian --help`"


def _load_files(files: list[str]) -> None:
    if not files:
        return
    from tian.errors import PluginError
    from tian.plugins.registry import get_registry

    registry = get_registry(extra_files=[Path(f) for f in files])
    for info in registry.plugins:
        if info.dist in files and info.state == "broken":
            problem = info.problems[-1]
            raise PluginError(f"the plugin file {info.dist}: {problem.message}", where=problem.where, hint=problem.hint)


def _bug(error: BaseException, *, as_json: bool) -> int:
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="tian-", suffix=".log", delete=False, encoding="utf-8") as file:
        file.write("".join(traceback.format_exception(error)))
    text = str(error).splitlines()
    wrapped = TianError(
        f"unexpected {type(error).__name__}: {text[0] if text else ''}",
        where=file.name,
        hint="this is a bug in tian or in a plugin; please report it with that file",
    )
    return _report(wrapped, as_json=as_json)


def plain(value: Any) -> Any:
    """Entry or other object as JSON-ready data."""
    return {k: v for k, v in vars(value).items() if not k.startswith("_")}
