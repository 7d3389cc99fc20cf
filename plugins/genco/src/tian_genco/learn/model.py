"""The generator as a model others can load: noise in, costs of a solver out."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import torch

from tian.errors import DataError
from tian.spec import Model
from tian_genco.learn.designs import Layout
from tian_genco.learn.generator import TileGenerator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from tian.spec import Site
    from tian_genco.learn.options import DesignGeneratorOptions

CONFIG, WEIGHTS = "generator.json", "generator.safetensors"


@dataclass(frozen=True)
class GeneratorShape:
    """What a generator is built from.

    Attributes:
        layout: of its designs.
        nz: length of z.
        channels: width of the hidden maps.
    """

    layout: Layout
    nz: int = 32
    channels: int = 32


class DesignGenerator(Model):
    """A `TileGenerator` with its layout; satisfies `TorchModel`.

    Args:
        options: shape and seed.
    """

    def __init__(self, options: DesignGeneratorOptions) -> None:
        shape = GeneratorShape(Layout(options.tiles, options.height, options.width), options.nz, options.channels)
        self.shape, self.net = shape, build(shape, seed=options.seed)

    @classmethod
    def of(cls, shape: GeneratorShape, net: TileGenerator) -> Self:
        """Around an existing network."""
        model = cls.__new__(cls)
        model.shape, model.net = shape, net
        return model

    def module(self) -> nn.Module:
        """The network."""
        return self.net

    def forward(self, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """`{"z": [B, nz], "noise": [B, 8, H, W]}` -> `{"logits": [B, T, H, W]}`."""
        return {"logits": self.net(batch["z"], batch["noise"])}

    def sites(self) -> Sequence[Site]:
        """None."""
        return ()

    def fingerprint(self) -> str:
        """SHA-256 of shape and weights."""
        digest = hashlib.sha256(json.dumps(asdict(self.shape), sort_keys=True).encode())
        for name, value in sorted(self.net.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save_weights(self, folder: Path) -> None:
        """Write `generator.json` and `generator.safetensors`."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.detach().cpu().contiguous() for k, v in self.net.state_dict().items()}, folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps(asdict(self.shape), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load_weights(cls, folder: Path) -> Self:
        """Read what `save_weights` wrote.

        Raises:
            DataError: a file is missing or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            plain: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            shape = GeneratorShape(**{**plain, "layout": Layout(**plain["layout"])})
            net = build(shape, seed=0)
            net.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
            raise DataError(
                f"no generator can be read from {folder}: {' '.join(str(error).split())[:200]}",
                where=str(folder),
                hint="give the folder of a finished run, e.g. runs/genco/zelda/...",
            ) from None
        return cls.of(shape, net)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """First weights drawn inside follow from the seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def build(shape: GeneratorShape, *, seed: int) -> TileGenerator:
    """A network with weights that follow from the seed alone."""
    with seeded(seed):
        return TileGenerator(
            tiles=shape.layout.tiles,
            height=shape.layout.height,
            width=shape.layout.width,
            nz=shape.nz,
            channels=shape.channels,
        )
