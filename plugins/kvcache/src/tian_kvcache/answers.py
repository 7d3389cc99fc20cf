"""Recipe `kvcache/answers`: questions about long contexts, answered by greedy generation under cache policies.

Source: the form of LongBench, arXiv 2308.14508: F1 over words, prompts that lose their middle. Differs: one prompt for all
tasks, without a chat template; tokens are cut, not text; every answer ends at a newline; the policies keep a share of
each prompt.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tian.config.compose import options_of
from tian.hf.families import check_length
from tian.hf.host import attach, prefill
from tian.hf.loading import load_model, load_tokenizer
from tian.hf.texts import read_documents, read_long
from tian.runs.files import append_jsonl, read_jsonl
from tian.runs.signals import SafePoint
from tian.types import Measurement
from tian_kvcache.accuracy import FULL, ROWS, at_capacity, is_of, mark_of
from tian_kvcache.answers_prompts import constructed, prompt_of
from tian_kvcache.answers_score import exact, f1
from tian_kvcache.arms import Arm, arms_at
from tian_kvcache.budget import budget_tokens
from tian_kvcache.intervals import mean_interval, wilson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tian.hf.texts import LongQuestion
    from tian.runs.rundir import Run
    from tian.spec import KVPolicy
    from tian_kvcache.answers_options import AnswersOptions


@torch.no_grad()
def answer(
    model: Any, tokenizer: Any, ids: Sequence[int], policy: KVPolicy, *, chunk: int, max_new: int, ends: set[int]
) -> str:
    """Read a prompt under a policy and generate greedily up to a newline, an end token or `max_new` tokens.

    The last token of the prompt is read by itself, so that even the first word is said from what the policy kept.

    Args:
        model: a causal LM.
        tokenizer: of the model.
        ids: the prompt, at least 2 tokens.
        policy: of the cache.
        chunk: tokens a piece.
        max_new: tokens at most.
        ends: token ids that end an answer.

    Returns:
        One line, without the white space around it; may be empty.

    Raises:
        InvalidInput, UnsupportedModel: see `attach` and `prefill`.
    """
    row, text, said = torch.tensor([ids], device=model.device), "", list[int]()
    with attach(model, kv=policy) as cache:
        prefill(model, row[:, :-1], cache, chunk=chunk)
        token = row[:, -1:]
        while len(said) < max_new and "\n" not in text:
            logits = model(input_ids=token, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
            token = logits.argmax(dim=-1, keepdim=True)
            if int(token) in ends:
                break
            said.append(int(token))
            text = tokenizer.decode(said, skip_special_tokens=True)
    return text.split("\n")[0].strip()


def answers(cfg: Any, run: Run) -> list[Measurement]:
    """See `AnswersOptions`. Each answer of each policy is a line of `answers.jsonl`; a resumed run asks those that lack.

    Raises:
        DataError: the model folder, the questions or the text cannot be used.
        InvalidInput: a prompt too short for the budget or too long for learned positions; see `attach`.
        UnsupportedModel, NoDevice: see `load_model`.
    """
    options: AnswersOptions = options_of(cfg)
    torch.manual_seed(int(cfg.seed))
    if options.threads:
        torch.set_num_threads(options.threads)
    questions, label = _questions(options, int(cfg.seed))
    tokenizer = load_tokenizer(options.model.path)
    model = load_model(options.model.path, device=options.device)
    prompts = [prompt_of(tokenizer, q, max_prompt=options.max_prompt) for q in questions]
    what, extra = "the longest prompt with its answer", options.max_new - 1  # the last generated token is not read
    longest = max(map(len, prompts))
    check_length(model, longest, extra=extra, what=what, where="max_prompt", hint="set max_prompt={room}")
    sizes = [budget_tokens(options.budget, len(ids)) for ids in prompts]
    arms = arms_at([options.kv, *options.compare], run, sorted(sizes)[len(sizes) // 2])
    ends = _ends(model, tokenizer)
    marks = [mark_of(ids) for ids in prompts]
    said: dict[str, dict[int, str]] = {arm.label: {} for arm in arms}
    for row in read_jsonl(run.path / ROWS):
        if is_of(row, said, marks):
            said[row["policy"]][row["item"]] = row["answer"]
    done = sum(map(len, said.values()))
    with run.progress(len(arms) * len(prompts), "questions", done=done) as bar, SafePoint() as safe:
        for arm in arms:
            bar.advance(0, f"questions: {arm.label}")
            assert arm.policy is not None  # noqa: S101 - built from a policy node
            for i, ids in enumerate(prompts):
                if i in said[arm.label]:
                    continue
                policy = at_capacity(arm.policy, sizes[i], positions=options.positions)
                how = {"chunk": options.chunk, "max_new": options.max_new}
                text = said[arm.label][i] = answer(model, tokenizer, ids, policy, ends=ends, **how)
                append_jsonl(run.path / ROWS, {"policy": arm.label, "item": i, "prompt": marks[i], "answer": text})
                bar.advance()
                safe.check()
            run.set_status("running")
    return _report(arms, questions, prompts, said, options, run, label)


def _questions(options: AnswersOptions, seed: int) -> tuple[list[LongQuestion], str]:
    """The questions, and what they are, for reports."""
    if options.data.path is None:
        documents, label = read_documents(options.text)
        made = constructed(documents, items=options.items, lines=options.lines, seed=seed)
        return made, f"constructed from {label}: the line after a quoted one of {options.lines} lines"
    path = Path(options.data.path)
    found = read_long(path)
    return (random.Random(seed).sample(found, options.items) if len(found) > options.items else found), path.name


def _ends(model: Any, tokenizer: Any) -> set[int]:
    """Ids that end an answer, by the tokenizer and by the model's generation config."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = own if isinstance(own, list) else [own]
    return {int(i) for i in (*listed, tokenizer.eos_token_id) if i is not None}


def _report(
    arms: list[Arm],
    questions: list[LongQuestion],
    prompts: list[list[int]],
    said: dict[str, dict[int, str]],
    options: AnswersOptions,
    run: Run,
    label: str,
) -> list[Measurement]:
    """The measurements, the configured policy first, and `answers.json` for the report.

    `F1` and `exact match` are means over questions; `F1 against full` is of the policy minus of full attention, paired.
    """
    n, out, rows = len(questions), [], []
    scores = {a.label: [f1(said[a.label][i], q.answers) for i, q in enumerate(questions)] for a in arms}
    for name, mine in scores.items():
        by = {"policy": name}
        hits = sum(exact(said[name][i], q.answers) for i, q in enumerate(questions))
        mean, ci = mean_interval(mine)
        found = [
            Measurement("F1", mean, "1", n, ci, higher_is_better=True, by=by),
            Measurement("exact match", hits / n, "1", n, wilson(hits, n), higher_is_better=True, by=by),
        ]
        if FULL in scores and name != FULL:
            mean, ci = mean_interval([a - b for a, b in zip(mine, scores[FULL], strict=True)])
            found.append(Measurement("F1 against full", mean, "1", n, ci, higher_is_better=True, by=by))
        out += found
        rows.append({"policy": name, **{m.name: [m.value, *(m.ci95 or (m.value, m.value))] for m in found}})
    run.write_json(
        "answers.json",
        {
            "items": n,
            "source": label,
            "constructed": options.data.path is None,
            "shipped": options.model.path is None,
            "model": options.model.path or "the small LM that ships with tian",
            "budget": options.budget,
            "chunk": options.chunk,
            "tokens": sorted(map(len, prompts))[n // 2],
            "cut": options.max_prompt,
            "main": arms[0].label,
            "rows": rows,
            "questions": [
                {
                    "input": q.input,
                    "where": q.where,
                    "references": q.answers,
                    "said": {a.label: said[a.label][i] for a in arms},
                }
                for i, q in enumerate(questions)
            ],
        },
    )
    return out
