"""The files of a new plugin, from the templates in `tian/templates/plugin`: `shared` and one folder a role."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tian.plugins.hookspecs import HOOK_OF

TEMPLATES = Path(__file__).parents[1] / "templates" / "plugin"
FRAMEWORK = "tian-framework>=0.1,<1"


@dataclass(frozen=True)
class Kind:
    """What the templates of a role need to be told.

    Attributes:
        role: the role.
        folder: of the templates, below TEMPLATES.
        module: of the component, without the package.
        summary: of the component, one line.
        demo: what the demo does, one line.
        claim: short name of the claim, then what it says, its metric, bar (`Le`, `Ge`), value and control.
        requires: the distribution it depends on.
    """

    role: str
    folder: str
    module: str
    summary: str
    demo: str
    claim: tuple[str, str, str, str, str, str]
    requires: str = FRAMEWORK


WITH_HF = FRAMEWORK.replace(">=", "[hf]>=")
KINDS = {
    "model": Kind(
        "model",
        "model",
        "model",
        "a multilayer perceptron for regression",
        "learn a sine and measure the error on new points",
        (
            "learns",
            "Training brings the error on new points to a tenth of that of always giving the mean.",
            *("relative error", "Le", "0.1", "steps=0"),
        ),
        WITH_HF,
    ),
    "planner": Kind(
        "planner",
        "planner",
        "planner",
        "plan by the cross-entropy method",
        "plan steps to a point and measure the way that is left",
        ("arrives", "The planned steps leave at most a fifth of the way.", "way left", "Le", "0.2", "evals=1"),
    ),
    "kv_policy": Kind(
        "kv_policy",
        "kv_policy",
        "policy",
        "keep the newest tokens",
        "read a random stream under the policy; count what is kept and compare with exact logits",
        (
            "bounded",
            "The cache never holds more than the budget, however long the stream.",
            *("kept tokens", "Le", "8", "subject.budget=64"),
        ),
        WITH_HF,
    ),
    "sparsity_predictor": Kind(
        "sparsity_predictor",
        "sparsity_predictor",
        "predictor",
        "predict active units by ridge regression of low rank",
        "predict the active neurons of a random layer and measure recall",
        (
            "finds-active",
            "Of the most active quarter of the neurons seven in ten are found, on tokens it has not seen.",
            *("recall", "Ge", "0.7", "shuffled=true"),
        ),
    ),
    "reward_model": Kind(
        "reward_model",
        "reward_model",
        "reward",
        "score the variety of words and the length of a text",
        "compare sentences with repetitive versions of them",
        (
            "prefers-variety",
            "A sentence is preferred to the same sentence with words repeated.",
            *("agreement", "Ge", "0.95", "repeats=0"),
        ),
    ),
    "solver": Kind(
        "solver",
        "solver",
        "solver",
        "solve 0/1 knapsacks by branch and bound",
        "solve random knapsacks and compare with the exact optimum",
        (
            "optimal",
            "Every instance is solved to the optimum that dynamic programming gives.",
            *("solved", "Ge", "1", "subject.max_nodes=0"),
        ),
    ),
    "evaluator": Kind(
        "evaluator",
        "evaluator",
        "evaluator",
        "share of exactly right answers, with a bootstrap interval",
        "evaluate a subject whose rate is known and count the intervals that contain it",
        (
            "covers",
            "At least 85 in 100 intervals contain the true rate (nominal: 95; the percentile interval is a bit narrow).",
            *("coverage", "Ge", "0.85", "subject.resamples=1"),
        ),
    ),
}


@dataclass
class Parts:
    """What a plugin is made of beside its name; the defaults make one from the templates of a role.

    Attributes:
        kind: the role's texts.
        cls: class of the component.
        options: module and class of its options, None when it has none.
        requires: distributions it depends on.
        needs: import names it needs.
        files: copied files, path in the package -> text; they take the place of the role's component.
        origin: a paragraph of the README on where it comes from.
        licence: SPDX expression.
        option_sets: what the conformance test tries (copies only).
    """

    kind: Kind
    cls: str
    options: tuple[str, str] | None
    requires: list[str]
    needs: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""
    licence: str = "Apache-2.0"
    option_sets: str = "[{}]"


def package_of(name: str) -> str:
    """The import name of a plugin's package."""
    return f"tian_{name.replace('-', '_')}"


def class_of(name: str, kind: Kind) -> str:
    """The class of its component: `my-idea` -> `MyIdea`, and `MyModel` where `Model` would hide a name in use."""
    cls = "".join(part.capitalize() for part in name.split("-"))
    used: set[str] = set()
    for path in (TEMPLATES / kind.folder).rglob("*.py.tpl"):
        found = re.findall(r"^ *(?:from|import|class) .*", path.read_text(encoding="utf-8"), re.M)
        used.update(*(re.findall(r"\w+", line) for line in found))
    return f"My{cls}" if cls in used or keyword.iskeyword(cls) else cls


def from_role(name: str, role: str) -> Parts:
    """A plugin of one role, from its templates."""
    kind = KINDS[role]
    cls = class_of(name, kind)
    return Parts(kind, cls, ("options", f"{cls}Options"), [kind.requires])


def render(name: str, parts: Parts) -> dict[str, str]:
    """All files: path below the plugin's folder -> text."""
    package = package_of(name)
    summary = _plain(parts.kind.summary)
    claim, says, metric, bar, value, control = parts.kind.claim
    more = [f'options="{package}.{parts.options[0]}:{parts.options[1]}",'] if parts.options else []
    if parts.needs:
        more.append(f"needs={_tuple(parts.needs)},")
    words = {
        "name": name,
        "package": package,
        "dist": f"tian-plugin-{name}",
        "role": parts.kind.role,
        "Class": parts.cls,
        "module": parts.kind.module,
        "options_module": parts.options[0] if parts.options else "",
        "summary": summary,
        "Summary": f"{summary[0].upper()}{summary[1:]}",
        "demo_summary": parts.kind.demo,
        "hook": HOOK_OF[parts.kind.role],
        "register_more": "".join(f"        {line}\n" for line in more),
        "requires": json.dumps(parts.requires),
        "license": parts.licence,
        "origin": parts.origin,
        "claim": claim,
        "says": says,
        "metric": metric,
        "Bar": bar,
        "bar": value,
        "control": control,
        "option_sets": parts.option_sets,
    }
    folders = ["shared", parts.kind.folder] if not parts.files else ["shared", parts.kind.role, parts.kind.folder]
    files: dict[str, str] = {}
    for folder in folders:
        for path in sorted((TEMPLATES / folder).rglob("*.tpl")):
            place = path.relative_to(TEMPLATES / folder).as_posix().removesuffix(".tpl")
            if (
                parts.files
                and folder == parts.kind.role
                and place.endswith((f"/{KINDS[folder].module}.py", "/options.py"))
            ):
                continue  # the copied files stand for them
            text = path.read_text(encoding="utf-8")
            if place == "README.md" and parts.options is None:
                text = "".join(line for line in text.splitlines(keepends=True) if "@@options_module@@" not in line)
            for old, new in (("PACKAGE", package), ("TESTS", "tests"), ("dot-git", ".git")):
                place = place.replace(old, new)
            files[place] = _fill(text, words)
    return files | {f"src/{package}/{place}": text for place, text in parts.files.items()}


def _fill(text: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(f"@@{word}@@", value)
    return text


def _plain(text: str) -> str:
    """Text that may stand between double quotes, on one line."""
    return " ".join(text.replace("\\", "/").replace('"', "'").split()).rstrip(".")


def _tuple(words: tuple[str, ...]) -> str:
    return f"({', '.join(json.dumps(w) for w in words)}{',' if len(words) == 1 else ''})"
