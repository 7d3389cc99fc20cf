"""How many tokens a layer may keep: a number, or a share of the prompt; the same in every layer, or a pyramid.

Imported when a config is composed, hence no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tian.errors import InvalidInput

LEAST = 2  # tokens; with one, nothing is left to choose
_HINT = "give the budget in tokens (kv.budget=64), or a larger share of the prompt"


@dataclass(kw_only=True)
class BudgetOptions:
    """Options every policy with a score has in common."""

    budget: int | float | None = None  # tokens kept, or with a dot the share of the prompt (0.2); null: the sizes below
    layers: Literal["uniform", "pyramid"] = "uniform"  # pyramid: 1.5 times as much in the lowest layer, 0.5 in the last
    positions: Literal["in_cache", "original"] = (
        "in_cache"  # what rotary angles count: places in_cache, or indices in the original stream
    )

    def __post_init__(self) -> None:
        check_budget(self.budget)


def check_budget(budget: int | float | None) -> None:
    """Refuse what is no budget.

    Raises:
        InvalidInput: fewer than 2 tokens, or a share outside 0..1.
    """
    if isinstance(budget, float) and not 0.0 < budget <= 1.0:
        raise InvalidInput(
            f"a budget with a dot is a share of the prompt, above 0 and at most 1, got {budget}",
            hint=f"for tokens write kv.budget={max(LEAST, round(budget)) if abs(budget) < 2**53 else LEAST}",
        )
    if isinstance(budget, int) and budget < LEAST:
        raise InvalidInput(f"budget must be >= {LEAST} tokens, got {budget}", hint=f"set kv.budget={LEAST} or more")


def budget_tokens(budget: int | float, prompt_len: int | None) -> int:
    """A budget in tokens; a share is rounded down, never to nothing.

    Args:
        budget: tokens, or a float share of the prompt.
        prompt_len: tokens of the prompt, None when not known.

    Raises:
        InvalidInput: a share without a prompt, or one that gives fewer than 2 tokens.

    Example:
        >>> budget_tokens(0.2, 100), budget_tokens(7, None)
        (20, 7)
    """
    if isinstance(budget, int):
        return budget
    if prompt_len is None:
        raise InvalidInput(f"the budget is {budget} of the prompt, and there is no prompt to take it of", hint=_HINT)
    tokens = int(budget * prompt_len)
    if tokens < LEAST:
        raise InvalidInput(
            f"the budget {budget} of a prompt of {prompt_len} tokens is {tokens} tokens; at least {LEAST} are needed",
            hint=_HINT,
        )
    return tokens


def layer_tokens(tokens: int, *, layer: int, n_layers: int, shape: str, least: int = LEAST) -> int:
    """What one layer gets of `tokens * n_layers`.

    Args:
        tokens: mean over layers.
        layer: which, 0-based.
        n_layers: how many.
        shape: `uniform`, or `pyramid`: falling linearly from 1.5 to 0.5 times the mean. The layers add up exactly.
        least: what the policy needs in a layer at the very least.

    Raises:
        InvalidInput: the layer would get fewer than `least`.

    Source:
        ours; more for low layers as in PyramidKV, arXiv 2406.02069.

    Example:
        >>> [layer_tokens(10, layer=i, n_layers=3, shape="pyramid") for i in range(3)]
        [15, 10, 5]
    """
    if shape == "uniform" or n_layers == 1:
        got = tokens
    else:

        def up_to(i: int) -> int:  # tokens of the layers below i, rounded down, so that the sum is exact
            return int(tokens * (1.5 * i - i * (i - 1) / (2 * (n_layers - 1))) + 1e-9)

        got = up_to(layer + 1) - up_to(layer)
    if got < max(least, 1):
        raise InvalidInput(
            f"layer {layer} of {n_layers} gets {got} of {tokens} tokens ({shape}); this policy needs {least}",
            hint=_HINT,
        )
    return got
