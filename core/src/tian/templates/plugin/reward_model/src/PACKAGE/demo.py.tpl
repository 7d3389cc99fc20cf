"""The run `@@name@@/demo`: compare sentences with the same sentences made repetitive."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tian.config.compose import options_of
from tian.spec import TextItem
from tian.types import Measurement

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from tian.runs.rundir import Run
    from @@package@@.demo_options import DemoOptions

TEXT = "the rain fell slowly over a grey harbour while two old fishermen mended nets and spoke of distant storms"


def demo(config: DictConfig, run: Run) -> list[Measurement]:
    """Measure how often the varied text is preferred to the repetitive one, in the first aspect."""
    options: DemoOptions = options_of(config)
    model = run.load("reward_model", options.subject)
    rng = random.Random(config.seed)
    pairs = []
    for _ in range(options.pairs):
        words = rng.sample(TEXT.split(), 12)
        worse = list(words)
        for place in rng.sample(range(1, len(words)), min(options.repeats, len(words) - 1)):
            worse[place] = words[0]
        pairs.append((TextItem("Tell of a harbour.", " ".join(words)), TextItem("Tell of a harbour.", " ".join(worse))))
    preferred = model.compare(pairs)[:, 0] > 0.5
    run.write_json("first.json", {"text": pairs[0][0].response, "why": model.explain(pairs[0][0])})
    return [Measurement("agreement", float(preferred.float().mean()), n=len(pairs), higher_is_better=True)]
