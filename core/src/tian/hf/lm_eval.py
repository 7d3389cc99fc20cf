"""lm-eval-harness on a slot cache: its own model class for transformers, with every request run under a KV policy.

    from tian.hf.lm_eval import TianLM
    lm_eval.simple_evaluate(model=TianLM("path/to/model", kv="h2o", kv_budget=0.2), tasks=["piqa"])

The package lm_eval is imported when this module is: `pip install tian-framework[lm-eval]`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tian.errors import InvalidInput, MissingDependency
from tian.hf.host import attach
from tian.hf.loading import load_model, load_tokenizer
from tian.hf.scoring import Reading, Row, score
from tian.plugins.registry import get_registry
from tian.spec import KVPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

try:
    _HFLM: Any = import_module("lm_eval.models.huggingface").HFLM
    _register = import_module("lm_eval.api.registry").register_model
except ImportError as error:
    raise MissingDependency(
        f"lm-eval-harness cannot be imported: {error}",
        where="tian.hf.lm_eval",
        hint='pip install "tian-framework[lm-eval]"',
    ) from error

_PREFIX = "kv_"


@_register("tian")
class TianLM(_HFLM):
    """HFLM whose log-likelihoods and generations run under a KV policy.

    A context is attended in full and then cut once (`reading="stream"`: cut after every token); its last token and the
    continuation are read one token at a time. Contexts are not truncated: a bounded cache has no need of it.

    Args:
        pretrained: local model folder, or a loaded causal LM with `tokenizer=`; nothing is downloaded.
        kv: a policy, or the name of one; then its options are `kv_NAME=value`, also in `--model_args`.
        reading: see `tian.hf.scoring.score`.
        kernel: see `attach`.
        device: of a model that is loaded here.
        more: options of HFLM, e.g. `batch_size` (a number), `add_bos_token`.

    Raises:
        DataError, UnsupportedModel, NoDevice: see `load_model`.
        UnknownName, InvalidInput: the policy or its options; `batch_size=auto`.
    """

    def __init__(
        self,
        pretrained: Any,
        *,
        kv: str | KVPolicy = "full",
        reading: Reading = "whole",
        kernel: str = "auto",
        device: str = "cpu",
        **more: Any,
    ) -> None:
        options = {k.removeprefix(_PREFIX): more.pop(k) for k in list(more) if k.startswith(_PREFIX)}
        if not str(more.get("batch_size", 1)).isdigit():
            raise InvalidInput(
                f"batch_size={more['batch_size']!r}: the size is not searched for here", hint="give a number"
            )
        self.policy: KVPolicy = kv if isinstance(kv, KVPolicy) else get_registry().load("kv_policy", kv, **options)
        self.reading, self.kernel = reading, kernel
        if isinstance(pretrained, str):
            tokenizer = more.setdefault("tokenizer", load_tokenizer(pretrained))
            if tokenizer.pad_token is None:  # else the harness adds one, which the model has no embedding for
                tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token
            pretrained = load_model(pretrained, device=device)
        super().__init__(pretrained=pretrained, device=device, **more)

    @property
    def eot_token_id(self) -> int:
        """What ends a generation; where the tokenizer has no end, its first token, which no text holds."""
        end = self.tokenizer.eos_token_id
        return int(self.tokenizer.bos_token_id if end is None else end)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,  # noqa: FBT001, FBT002 - the library's signature
        override_bs: int | None = None,
        **_more: Any,
    ) -> list[tuple[float, bool]]:
        """Sum of log-probabilities (nats) of each continuation, and whether greedy decoding would write it."""
        rows = [Row(tuple(context) or (self.prefix_token_id,), tuple(target)) for _, context, target in requests]
        with attach(self.model, kv=self.policy, kernel=self.kernel) as cache:
            found = score(
                self.model, rows, cache=cache, reading=self.reading, batch=override_bs or int(self.batch_size)
            )
        out = [(float(one.log_prob.double().sum()), one.greedy) for one in found]
        for (texts, *_), answer in zip(requests, out, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answer)
        return out

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **more: Any) -> Any:
        """Generate under the policy; the batch is padded on the left."""
        with attach(self.model, kv=self.policy, kernel=self.kernel) as cache:
            return super()._model_generate(context, max_length, stop, past_key_values=cache, **more)
