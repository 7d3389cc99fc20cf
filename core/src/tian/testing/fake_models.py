"""A model with every capability, small enough to check by hand; see `tian.testing.fakes` for the other roles."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from tian.errors import DataError, InvalidInput
from tian.spec import Generation, Instance, Model, Site

VOCAB = 16


class Affine(nn.Module):
    """y = w . x + b, drawn from a seed of its own."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(width, generator=g))
        self.bias = nn.Parameter(torch.randn(1, generator=g))

    def forward(self, x: Tensor) -> Tensor:
        """`[N, width]` -> `[N]`."""
        return x @ self.weight + self.bias


class FakeTorchModel(Model):
    """An affine map that can also complete, generate, encode trajectories and make instances, each by a simple rule."""

    def __init__(self, width: int = 3, seed: int = 0) -> None:
        if width < 1:
            raise InvalidInput(f"width must be >= 1, got {width}")
        self.width, self.seed = width, seed
        self._module = Affine(width, seed)

    def fingerprint(self) -> str:
        """SHA-256 of the width and the weights."""
        digest = hashlib.sha256(str(self.width).encode())
        for _, p in sorted(self._module.state_dict().items()):
            digest.update(p.numpy().tobytes())
        return digest.hexdigest()

    # -- TorchModel ----------------------------------------------------------------------------------------------------

    def module(self) -> nn.Module:
        """The affine map."""
        return self._module

    def forward(self, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """`x [N, width]` -> `prediction [N]`, with targets `y [N]` the mean squared error."""
        out = {"prediction": self._module(batch["x"])}
        return out | {"loss": (out["prediction"] - batch["y"]).square().mean()} if "y" in batch else out

    def sites(self) -> Sequence[Site]:
        """One."""
        return [Site("mlp", 0, self.width)]

    def save_weights(self, folder: Path) -> None:
        """`model.safetensors` and `config.json`."""
        from safetensors.torch import save_file

        save_file(self._module.state_dict(), folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"width": self.width, "seed": self.seed}), encoding="utf-8")

    @classmethod
    def load_weights(cls, folder: Path) -> Self:
        """Read them back."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            model = cls(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
            model._module.load_state_dict(load_file(folder / "model.safetensors"))
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise DataError(f"the model in {folder} cannot be read: {error}", where=str(folder)) from error
        return model

    # -- text ----------------------------------------------------------------------------------------------------------

    def complete(self, prompts: Sequence[str], sampling: Mapping[str, Any]) -> list[str]:
        """Each prompt backwards."""
        return [p[::-1] for p in prompts]

    def generate(
        self, ids: Tensor, *, max_new_tokens: int, kv: Any, sampling: Mapping[str, Any], seed: int
    ) -> Generation:
        """Each id is the one before plus 1, at a temperature above 0 plus a draw from the seed."""
        if ids.dim() != 2 or ids.shape[1] == 0:
            raise InvalidInput(f"the prompt must be [B, T] with T >= 1, got {list(ids.shape)}")
        B, T = ids.shape
        step = torch.ones(B, max_new_tokens, dtype=torch.int64)
        if sampling.get("temperature", 0.0) > 0:
            step += torch.randint(0, 3, step.shape, generator=torch.Generator().manual_seed(seed))
        new = (ids[:, -1:] + step.cumsum(dim=1)) % VOCAB
        lengths = torch.full((B,), T + max_new_tokens, dtype=torch.int64)
        return Generation(torch.cat([ids, new], dim=1), lengths, ("length",) * B, 0.0, 0.0, 0, 0.0)

    # -- trajectories and instances ------------------------------------------------------------------------------------

    def encode(self, states: Tensor, actions: Tensor) -> Tensor:
        """One code of four a step: the signs of the first state and the first action."""
        return (states[..., 0] > 0).long() * 2 + (actions[..., 0] > 0).long()

    def decode(self, codes: Tensor, s0: Tensor) -> tuple[Tensor, Tensor]:
        """The start state with the sign of each code, and two actions of 1 or -1."""
        sign = ((codes // 2) * 2 - 1).float()[..., None]
        action = ((codes % 2) * 2 - 1).float()[..., None].expand(-1, -1, 2)
        return s0[:, None].abs() * sign, action

    def prior(self, codes: Tensor, s0: Tensor) -> Tensor:
        """All four codes alike."""
        return torch.zeros(*codes.shape, 4)

    def instances(self, z: Tensor) -> list[Instance]:
        """Choose one of Z items at the cost z."""
        return [Instance("choose-k", row.double().numpy(), 1) for row in z]
