"""The model: a small multilayer perceptron for regression."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from tian.errors import DataError, InvalidInput, TianError
from tian.spec import Model, Site
from @@package@@.options import @@Class@@Options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class @@Class@@(Model):
    """`depth` hidden layers of `width` units with tanh; it satisfies `tian.spec.TorchModel`."""

    def __init__(self, options: @@Class@@Options) -> None:
        self.options = options
        generator = torch.Generator().manual_seed(options.seed)  # the global random state stays as it is
        sizes = [options.inputs, *[options.width] * options.depth, 1]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            linear = nn.Linear(fan_in, fan_out, device="meta").to_empty(device="cpu")
            for weight in linear.parameters():
                nn.init.uniform_(weight, -(fan_in**-0.5), fan_in**-0.5, generator=generator)
            layers += [linear, nn.Tanh()]
        self._module = nn.Sequential(*layers[:-1])

    def fingerprint(self) -> str:
        """SHA-256 of the options and the weights."""
        digest = hashlib.sha256(json.dumps(asdict(self.options)).encode())
        for name, weight in self._module.state_dict().items():
            digest.update(name.encode() + weight.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def module(self) -> nn.Module:
        """The torch module, `[N, inputs]` -> `[N, 1]`."""
        return self._module

    def forward(self, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """`x [N, inputs]` float32 -> `prediction [N]`; with `target [N]` also `loss`, the mean squared error.

        Raises:
            InvalidInput: `x` is absent or of another shape.
        """
        x = batch.get("x")
        if x is None or x.dim() != 2 or x.shape[1] != self.options.inputs:
            found = "absent" if x is None else f"of shape {list(x.shape)}"
            raise InvalidInput(f"x must be [N, {self.options.inputs}], it is {found}", hint='pass {"x": x}')
        prediction = self._module(x)[:, 0]
        out = {"prediction": prediction}
        if "target" in batch:
            out["loss"] = mse_loss(prediction, batch["target"])
        return out

    def sites(self) -> Sequence[Site]:
        """The hidden layers."""
        return [Site("mlp", layer, self.options.width) for layer in range(self.options.depth)]

    def save_weights(self, folder: Path) -> None:
        """Write `model.safetensors` and `config.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self._module.state_dict(), folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(asdict(self.options)) + "\n", encoding="utf-8")

    @classmethod
    def load_weights(cls, folder: Path) -> Self:
        """Read what `save_weights` wrote.

        Raises:
            DataError: a file is absent or damaged.
        """
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            model = cls(@@Class@@Options(**config))
            model.module().load_state_dict(load_file(folder / "model.safetensors"))
        except (OSError, ValueError, TypeError, RuntimeError, SafetensorError, TianError) as error:
            text = " ".join(str(error).split())
            raise DataError(
                f"no weights can be read from {folder}: {text}", where=str(folder), hint="save the model again"
            ) from None
        return model
