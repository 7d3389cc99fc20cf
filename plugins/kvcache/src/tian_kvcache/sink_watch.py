"""How the attention on the first token grows in training: one more metric of each row."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from tian.hf.corpus import cut_streams, encode
from tian.training.module import TianModule
from tian_kvcache.checks import probe_first_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from tian.hf.lm_train import Prepared
    from tian_kvcache.sink_table_options import SinkTableOptions

STREAMS = 8  # held-out streams looked at


class Watching(TianModule):
    """A TianModule that looks at held-out streams every so many steps.

    Args:
        model: causal LM.
        ids: `[S, T]` int64 held-out streams, as the model expects them.
        every: steps between looks.
        settings: of `TianModule`.
    """

    def __init__(self, model: Any, *, ids: Tensor, every: int, **settings: Any) -> None:
        super().__init__(model, **settings)
        self._ids, self._every = ids, every
        # A buffer: a resumed training writes the same rows.
        self.register_buffer("seen", torch.zeros(model.config.num_hidden_layers))

    @property
    def metrics(self) -> dict[str, Tensor]:
        """The loss, and the share of late queries' attention on the first token in the layer where it is largest.

        The lowest layer does not count where there is another; the value is that of the last look.
        """
        return super().metrics | {"first_token_mass": self.seen[min(1, len(self.seen) - 1) :].max()}

    def on_train_batch_end(self, _outputs: Any, _batch: Any, index: int) -> None:
        """Look, when it is time; weights and random state stay as they are."""
        if (index + 1) % self._every:
            return
        self.model.eval()
        first = probe_first_token(self.model, self._ids.to(self.device), recent=self._ids.shape[1] - 1)
        self.model.train()
        self.seen.copy_(torch.tensor(first.mass))


def begin_with(ids: Tensor, first: int | None) -> Tensor:
    """The streams `[S, T]` as a model expects them: a dedicated first token takes the place of the text's first one.

    As in `training_batch`, so that the targets, columns 1 and later, are the same for every training.
    """
    if first is None:
        return ids
    return torch.cat([torch.full_like(ids[:, :1], first), ids[:, 1:]], dim=1)


def watching(name: str, data: Prepared, options: SinkTableOptions) -> Callable[..., Watching]:
    """What `train_folder` makes its module with: streams of the training length, from the held-out text."""
    ids = cut_streams(encode(data.tokenizer, data.held_out.text), first=[], streams=STREAMS, tokens=options.lm.context)
    bos = data.tokenizer.bos_token_id if options.of(name).lm.first == "token" else None
    return partial(Watching, ids=begin_with(ids, bos), every=options.watch_every)
