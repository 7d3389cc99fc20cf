"""Recipe `kvcache/accuracy`: multiple-choice accuracy of policies that keep a share of the prompt, against full attention.

Source: H2O, arXiv 2306.14048, section 5 (10 % heavy + 10 % recent of the prompt). Differs: the prompt may be attended in
full and cut once, as a server does; the authors' evaluation evicts while it reads (`reading=stream` here).
"""

from __future__ import annotations

import copy
import random
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tian.config.compose import options_of
from tian.hf.choices import Item, choose, cloze, encode_questions
from tian.hf.families import check_length
from tian.hf.host import attach
from tian.hf.loading import load_model, load_tokenizer
from tian.hf.scoring import score
from tian.hf.texts import read_choices, read_documents
from tian.runs.files import append_jsonl, read_jsonl
from tian.runs.signals import SafePoint
from tian.types import Measurement
from tian_kvcache.arms import Arm, arms_at
from tian_kvcache.budget import budget_tokens, layer_tokens
from tian_kvcache.intervals import mcnemar, mean_interval, wilson
from tian_kvcache.policies import Full

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    from tian.runs.rundir import Run
    from tian.spec import KVPolicy
    from tian_kvcache.accuracy_options import AccuracyOptions

ROWS = "answers.jsonl"
FULL = "full"
CHANGE = "log-prob change"


def mark_of(prompt: object) -> int:
    """A checksum of what is asked, so that a resumed run does not take over the answer to another question."""
    return zlib.crc32(repr(prompt).encode())


def is_of(row: Mapping[str, Any], policies: Container[str], marks: Sequence[int]) -> bool:
    """Whether a line of `answers.jsonl` belongs to one of these policies and questions."""
    return row["policy"] in policies and row["item"] < len(marks) and row["prompt"] == marks[row["item"]]


def at_capacity(policy: KVPolicy, tokens: int, *, positions: str | None = None) -> KVPolicy:
    """The policy with `tokens` to keep (mean over layers), in its own proportions; an unbounded one as it is."""
    if isinstance(policy, Full):
        return policy
    clone = copy.copy(policy)
    shape, sinks = getattr(policy, "layers", "uniform"), getattr(policy, "sinks", 0)

    def capacity(layer: int, n_layers: int, _prompt_len: int | None = None) -> int:
        return layer_tokens(tokens, layer=layer, n_layers=n_layers, shape=shape, least=min(sinks, tokens - 1) + 1)

    vars(clone).update(capacity=capacity, **({"sinks": min(sinks, tokens - 1)} if sinks else {}))
    if positions is not None:
        vars(clone)["positions"] = positions
    return clone


def accuracy(cfg: Any, run: Run) -> list[Measurement]:
    """See `AccuracyOptions`. Each question of each policy is a line of `answers.jsonl`; a resumed run asks those that lack.

    Raises:
        DataError: the model folder, the questions or the text cannot be used.
        InvalidInput: a prompt too short for the budget or too long for learned positions; see `attach`.
        UnsupportedModel, NoDevice: see `load_model`.
    """
    options: AccuracyOptions = options_of(cfg)
    torch.manual_seed(int(cfg.seed))
    if options.threads:
        torch.set_num_threads(options.threads)
    tokenizer = load_tokenizer(options.model.path)
    model = load_model(options.model.path, device=options.device)
    items, label = _items(options, tokenizer, int(cfg.seed))
    longest = max(len(row.ids) for item in items for row in item.rows)
    hint = "ask shorter questions, or with fewer examples (data.shots)"
    check_length(model, longest, what="a question with its choice", where="data", hint=hint)
    sizes = [budget_tokens(options.budget, len(item.rows[0].prefix)) for item in items]
    nodes = [options.kv, *options.compare, {"use": "kvcache/full"}]
    arms = arms_at(nodes, run, sorted(sizes)[len(sizes) // 2])
    answers: dict[str, dict[int, list[float]]] = {arm.label: {} for arm in arms}
    marks = [mark_of([row.ids for row in item.rows]) for item in items]
    for row in read_jsonl(run.path / ROWS):
        if is_of(row, answers, marks):
            answers[row["policy"]][row["item"]] = row["log_prob"]
    done = sum(map(len, answers.values()))
    with run.progress(len(arms) * len(items), "questions", done=done) as bar:
        for arm in arms:
            bar.advance(0, f"questions: {arm.label}")
            _ask(model, arm, items, sizes, marks, answers[arm.label], options, run, bar.advance)
            run.set_status("running")
    return _report(arms, items, answers, options, run, label)


def _items(options: AccuracyOptions, tokenizer: Any, seed: int) -> tuple[list[Item], str]:
    """The questions, and what they are, for reports."""
    if options.data.path is None:
        documents, label = read_documents(options.text)
        shape = {"context": options.context, "continuation": options.continuation, "choices": options.choices}
        found = cloze(tokenizer, documents, items=options.items, seed=seed, **shape)
        return found, f"cloze items of {label}: {options.context} tokens, which {options.continuation} follow?"
    path = Path(options.data.path)
    items = encode_questions(tokenizer, read_choices(path), shots=options.data.shots)
    if len(items) > options.items:
        items = random.Random(seed).sample(items, options.items)
    return items, f"{path.name}, {options.data.shots} examples in front"


def _ask(
    model: Any,
    arm: Arm,
    items: list[Item],
    sizes: list[int],
    marks: list[int],
    answers: dict[int, list[float]],
    options: AccuracyOptions,
    run: Run,
    advance: Callable[[int], None],
) -> None:
    """Score every choice of the items that lack an answer; those with one budget go together."""
    assert arm.policy is not None  # noqa: S101 - built from a policy node
    groups: dict[int, list[int]] = {}
    for i, size in enumerate(sizes):
        if i not in answers:
            groups.setdefault(0 if isinstance(arm.policy, Full) else size, []).append(i)
    with SafePoint() as safe:
        for size, group in sorted(groups.items()):
            policy = at_capacity(arm.policy, size, positions=options.positions)
            each = max(1, options.batch // max(len(items[i].rows) for i in group))
            for at in range(0, len(group), each):
                chunk = group[at : at + each]
                with attach(model, kv=policy) as cache:
                    rows = [r for i in chunk for r in items[i].rows]
                    scored = iter(score(model, rows, cache=cache, reading=options.reading, batch=options.batch))
                for i in chunk:
                    answers[i] = [float(next(scored).log_prob.double().sum()) for _ in items[i].rows]
                    row = {"policy": arm.label, "item": i, "prompt": marks[i], "log_prob": answers[i]}
                    append_jsonl(run.path / ROWS, row)
                advance(len(chunk))
                safe.check()


def _report(
    arms: list[Arm],
    items: list[Item],
    answers: dict[str, dict[int, list[float]]],
    options: AccuracyOptions,
    run: Run,
    label: str,
) -> list[Measurement]:
    """The measurements, the configured policy first, and `accuracy.json` for the report.

    - `accuracy`, `accuracy per byte`: share of right choices by log-probability, and by that per byte of the choice;
    - `accuracy lost`: of full attention minus of the policy, paired by question;
    - `agreement`: share of questions on which the policy chooses as full attention does, right or wrong;
    - `log-prob change`: nats a token, mean over choices of how much a choice's log-probability differs from full
      attention's; and by how much less it changes than under each other policy (`over`), paired by question.
    """
    n, main = len(items), arms[0].label
    full, rows, out = answers[FULL], [], []
    picked = {a.label: [choose(answers[a.label][i]) for i in range(n)] for a in arms}
    right = {name: [p == item.gold for p, item in zip(ps, items, strict=True)] for name, ps in picked.items()}
    change = {a.label: [_change(items[i], answers[a.label][i], full[i]) for i in range(n)] for a in arms}
    for name, chosen in picked.items():
        by = {"policy": name}
        per_byte = sum(choose(answers[name][i], item.bytes_) == item.gold for i, item in enumerate(items))
        same = sum(a == b for a, b in zip(chosen, picked[FULL], strict=True))
        shares = {"accuracy": sum(right[name]), "accuracy per byte": per_byte, "agreement": same}
        measured = {
            key: Measurement(key, k / n, "1", n, wilson(k, n), higher_is_better=True, by=by)
            for key, k in shares.items()
        }
        lost, lost_ci = mean_interval([float(f) - float(r) for f, r in zip(right[FULL], right[name], strict=True)])
        measured["lost"] = Measurement("accuracy lost", lost, "1", n, lost_ci, higher_is_better=False, by=by)
        moved, moved_ci = mean_interval(change[name])
        measured[CHANGE] = Measurement(CHANGE, moved, "nat", n, moved_ci, higher_is_better=False, by=by)
        out += [m for m in measured.values() if name != FULL or m.name in ("accuracy", "accuracy per byte")]
        rows.append(
            {
                "policy": name,
                "mcnemar": mcnemar(right[name], right[FULL]),
                **{key: [m.value, *(m.ci95 or (m.value, m.value))] for key, m in measured.items()},
            }
        )
    for name in picked:
        if name not in (main, FULL):
            gain, ci = mean_interval([b - a for a, b in zip(change[main], change[name], strict=True)])
            by = {"policy": main, "over": name}
            out.append(Measurement(f"{CHANGE} avoided", gain, "nat", n, ci, higher_is_better=True, by=by))
    run.write_json(
        "accuracy.json",
        {
            "items": n,
            "source": label,
            "cloze": options.data.path is None,
            "shipped": options.model.path is None,
            "model": options.model.path or "the small LM that ships with tian",
            "budget": options.budget,
            "reading": options.reading,
            "chance": sum(1 / len(item.rows) for item in items) / n,
            "main": main,
            "rows": rows,
        },
    )
    return out


def _change(item: Item, ours: list[float], full: list[float]) -> float:
    """Nats a token by which choices differ from full attention, mean over choices."""
    moved = [abs(a - b) / len(row.target) for a, b, row in zip(ours, full, item.rows, strict=True)]
    return sum(moved) / len(moved)
