"""Prompts of `kvcache/answers`: how a question is put to the model, and questions made of any text when there are none."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from tian.errors import DataError
from tian.hf.corpus import first_tokens
from tian.hf.texts import LongQuestion
from tian_kvcache.answers_score import words_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tian.hf.texts import Document

LONGEST_LINE = 80  # characters of a line that is quoted or asked for


def prompt_of(tokenizer: Any, question: LongQuestion, *, max_prompt: int | None) -> list[int]:
    """Ids of context, question and `Answer:` behind the tokenizer's first token, without the middle if too long.

    Args:
        tokenizer: of the model.
        question: what is asked.
        max_prompt: tokens, the first one included: half of them from the front, the rest from the end; None: all.
    """
    text = f"{question.context}\n\n{question.input}\nAnswer:"
    ids = [*first_tokens(tokenizer), *tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]]
    if max_prompt is None or len(ids) <= max_prompt:
        return ids
    front = max_prompt // 2
    return ids[:front] + ids[len(ids) - (max_prompt - front) :]


def constructed(documents: Sequence[Document], *, items: int, lines: int, seed: int) -> list[LongQuestion]:
    """Which line follows a quoted one? Some lines of a text, one of them quoted, the next one the answer.

    Args:
        documents: texts with lines.
        items: how many questions.
        lines: of each context; blank ones are left out.
        seed: of the places.

    Raises:
        DataError: no text has so many lines, or hardly any can be asked for.

    Source: ours.
    """
    texts = [(d.name, [x for x in d.text.splitlines() if x.strip()]) for d in documents]
    texts = [(name, text) for name, text in texts if len(text) >= lines]
    rng, out = random.Random(seed), list[LongQuestion]()
    for _ in range(200 * items if texts else 0):
        name, text = rng.choices(texts, weights=[len(t) - lines + 1 for _, t in texts])[0]
        at = rng.randrange(len(text) - lines + 1)
        part = [x.strip() for x in text[at : at + lines]]
        asked = rng.randrange(lines - 1)
        quoted, answer = part[asked : asked + 2]
        if (
            part.count(quoted) > 1
            or len(words_of(answer)) < 2
            or not words_of(quoted)
            or max(len(quoted), len(answer)) > LONGEST_LINE
        ):
            continue
        context = "\n".join(text[at : at + lines])
        out.append(LongQuestion(context, f"Which line follows `{quoted}`?", (answer,), f"{name}, line {at + 1}"))
        if len(out) == items:
            return out
    raise DataError(
        f"{len(out)} of {items} questions could be made of the text: each takes {lines} lines, one of them of words and unlike "
        f"the others, the next of two words or more, both of at most {LONGEST_LINE} characters",
        where="text",
        hint="give a text with shorter or more lines, or fewer items or lines",
    )
