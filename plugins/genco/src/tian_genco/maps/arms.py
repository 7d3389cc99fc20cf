"""The two kinds of generator behind one interface: train what all objectives share, then one arm for each."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from tian_genco.learn.model import seeded
from tian_genco.maps.prior import CodePrior, PriorLoss, mean_costs
from tian_genco.maps.training import train
from tian_genco.maps.vae import MapVAE, VaeLoss
from tian_genco.maps.vqvae import VQVAE, CostHead

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from tian.runs.rundir import Run
    from tian_genco.maps.data import Maps, MapSet
    from tian_genco.maps.objective import Objective
    from tian_genco.maps.options import WarcraftOptions
    from tian_genco.paths.terrain import Bytes

SHARED = "shared"  # part of the stage all arms have in common
SAMPLE_SEED = 2**20  # offset: noise of samples is none of training's
CHUNK = 250  # maps at a time outside training


class Arm(Protocol):
    """A trained generator of maps."""

    def sample(self, n: int, *, seed: int) -> tuple[Bytes, Bytes | None]:
        """Classes `[n, H, W]` and, where it draws them, images `[n, 8H, 8W, 3]`; the same noise for every arm."""
        ...

    def fit(self, maps: MapSet, *, seed: int) -> dict[str, NDArray[np.float64]]:
        """How well it knows given maps: `reconstruction` and another number, `[n]` each."""
        ...

    def save(self, folder: Path) -> None:
        """Write its weights as safetensors."""
        ...


class Arms(Protocol):
    """Trains arms that differ in the objective only: same shared stage, same batches, same noise."""

    def arm(self, objective: Objective | None, *, part: str) -> Arm:
        """The arm of one objective; `part` names its training."""
        ...


class _Trained:
    """What both kinds need to train."""

    def __init__(self, maps: Maps, options: WarcraftOptions, run: Run) -> None:
        self.maps, self.options = maps, options
        self.run, self.seed = run, int(run.config.seed)
        self.levels = torch.from_numpy(maps.levels).float()
        self.height, self.width = (int(k) for k in maps.train.classes.shape[1:])

    def rows(self, rng: torch.Generator) -> NDArray[np.int64]:
        """A batch of training maps."""
        found: NDArray[np.int64] = torch.randint(
            len(self.maps.train.classes), (self.options.train.batch,), generator=rng
        ).numpy()
        return found

    def stage(self, model: nn.Module, batch: Any, *, part: str) -> None:
        """The shared stage, or the steered one of an arm: the same batches for every arm, the rate falling."""
        o = self.options.train
        if part == SHARED:
            self.train(model, batch, steps=o.shared, part=part)
        else:
            self.train(model, batch, steps=o.steered, part=part, like="steered", final=o.final)

    def train(self, model: nn.Module, batch: Any, *, steps: int, part: str, like: str = "", final: float = 1.0) -> None:
        options = self.options
        train(
            model,
            batch,
            steps=steps,
            lr=options.train.lr,
            trainer=options.trainer,
            run=self.run,
            seed=self.seed,
            part=part,
            like=like,
            final=final,
        )


class VaeArms(_Trained):
    """Arms of a `MapVAE`."""

    def __init__(self, maps: Maps, options: WarcraftOptions, run: Run) -> None:
        super().__init__(maps, options, run)
        with seeded(self.seed):
            self.vae = MapVAE(
                classes=len(maps.levels),
                height=self.height,
                width=self.width,
                latent=options.vae.latent,
                channels=options.vae.width,
            )
        self._stage(self.vae, None, part=SHARED)

    def arm(self, objective: Objective | None, *, part: str) -> VaeArm:
        """See `Arms`."""
        vae = deepcopy(self.vae)
        self._stage(vae, objective, part=part)
        return VaeArm(vae)

    def _stage(self, vae: MapVAE, objective: Objective | None, *, part: str) -> None:
        def batch(rng: torch.Generator) -> dict[str, Tensor]:
            classes = torch.from_numpy(self.maps.train.classes[self.rows(rng)].astype(np.int64))
            noise = torch.randn(len(classes), vae.latent, generator=rng)
            prior = torch.randn(self.options.objective.samples, vae.latent, generator=rng)
            return {"classes": classes, "noise": noise, "prior": prior}

        loss = VaeLoss(vae, self.levels, kl=self.options.vae.kl, objective=objective)
        self.stage(loss, batch, part=part)


class VaeArm:
    """A trained `MapVAE`; its samples are the most likely classes.

    Args:
        vae: the network.
    """

    def __init__(self, vae: MapVAE) -> None:
        self.vae = vae

    @torch.no_grad()
    def sample(self, n: int, *, seed: int) -> tuple[Bytes, Bytes | None]:
        """See `Arm`; no images."""
        z = torch.randn(n, self.vae.latent, generator=torch.Generator().manual_seed(SAMPLE_SEED + seed))
        grids = [self.vae.decode(part).argmax(dim=1).to(torch.uint8).numpy() for part in torch.split(z, CHUNK)]
        return np.concatenate(grids), None

    @torch.no_grad()
    def fit(self, maps: MapSet, *, seed: int) -> dict[str, NDArray[np.float64]]:
        """`reconstruction` and `divergence`, nats of each map."""
        classes = torch.from_numpy(maps.classes.astype(np.int64))
        rng = torch.Generator().manual_seed(SAMPLE_SEED + seed)
        noise = torch.randn(len(classes), self.vae.latent, generator=rng)
        parts = [
            self.vae.nats(c, e) for c, e in zip(torch.split(classes, CHUNK), torch.split(noise, CHUNK), strict=True)
        ]
        lost, apart = (torch.cat(column).double().numpy() for column in zip(*parts, strict=True))
        return {"reconstruction": lost, "divergence": apart}

    def save(self, folder: Path) -> None:
        """Write `vae.safetensors`."""
        save_weights(self.vae, folder / "vae.safetensors")


class VqArms(_Trained):
    """Arms of a `CodePrior`, which share cost head, autoencoder and codes."""

    def __init__(self, maps: Maps, options: WarcraftOptions, run: Run) -> None:
        super().__init__(maps, options, run)
        o = options.vqvae
        with seeded(self.seed):
            self.head = CostHead(classes=len(maps.levels), channels=o.width)
            self.vqvae = VQVAE(codes=o.codes, dims=o.dims, channels=o.width, decay=o.decay, commitment=o.commitment)
            self.prior = CodePrior(codes=o.codes, height=self.height, width=self.width, state=o.prior_width)

        def labelled(rng: torch.Generator) -> dict[str, Tensor]:
            rows = self.rows(rng)
            classes = torch.from_numpy(maps.train.classes[rows].astype(np.int64))
            return {"pixels": self.pixels(maps.train, rows), "classes": classes}

        def pictures(rng: torch.Generator) -> dict[str, Tensor]:
            pixels = self.pixels(maps.train, self.rows(rng))
            return {"pixels": pixels, "pick": torch.rand(o.codes, generator=rng)}

        self.train(self.head, labelled, steps=o.head_steps, part="head")
        self.train(self.vqvae, pictures, steps=o.code_steps, part="codes")
        self.codes = self.codes_of(maps.train)
        self.table = mean_costs(self.codes, torch.from_numpy(maps.levels[maps.train.classes]), o.codes)
        self._stage(self.prior, None, part=SHARED)

    def pixels(self, maps: MapSet, rows: Any) -> Tensor:
        """Normalised images of some rows."""
        assert maps.images is not None  # noqa: S101 - loaded with images=True
        return self.maps.pixels(maps.images[rows])

    @torch.no_grad()
    def codes_of(self, maps: MapSet) -> Tensor:
        """`[n, h, w]` codes of all maps of a set."""
        n = len(maps.classes)
        return torch.cat([self.vqvae.codes_of(self.pixels(maps, slice(i, i + CHUNK))) for i in range(0, n, CHUNK)])

    def arm(self, objective: Objective | None, *, part: str) -> VqArm:
        """See `Arms`."""
        prior = deepcopy(self.prior)
        self._stage(prior, objective, part=part)
        return VqArm(self, prior)

    def _stage(self, prior: CodePrior, objective: Objective | None, *, part: str) -> None:
        def batch(rng: torch.Generator) -> dict[str, Tensor]:
            rows = self.rows(rng)
            uniform = torch.rand(self.options.objective.samples, self.height * self.width, generator=rng)
            return {"codes": self.codes[rows], "uniform": uniform}

        loss = PriorLoss(prior, self.table, objective=objective)
        self.stage(loss, batch, part=part)


class VqArm:
    """A trained `CodePrior` before a shared decoder; classes are read off its images by the cost head.

    Args:
        parts: the shared parts.
        prior: over codes.
    """

    def __init__(self, parts: VqArms, prior: CodePrior) -> None:
        self.parts, self.prior = parts, prior

    @torch.no_grad()
    def sample(self, n: int, *, seed: int) -> tuple[Bytes, Bytes | None]:
        """See `Arm`."""
        p = self.parts
        rng = torch.Generator().manual_seed(SAMPLE_SEED + seed)
        grids, images = [], []
        for uniform in torch.split(torch.rand(n, p.height * p.width, generator=rng), CHUNK):
            pixels = p.vqvae.decode(p.vqvae.codebook.lookup(self.prior.sample(uniform)))
            grids.append(p.head.logits(pixels).argmax(dim=1).to(torch.uint8).numpy())
            images.append(p.maps.bytes_of(pixels))
        return np.concatenate(grids), np.concatenate(images)

    @torch.no_grad()
    def fit(self, maps: MapSet, *, seed: int) -> dict[str, NDArray[np.float64]]:
        """`reconstruction` (share of a channel's variance), `code nats`, and `cells read right` of each map."""
        p, out = self.parts, []
        for i in range(0, len(maps.classes), CHUNK):
            pixels = p.pixels(maps, slice(i, i + CHUNK))
            codes = p.vqvae.codes_of(pixels)
            lost = (p.vqvae.decode(p.vqvae.codebook.lookup(codes)) - pixels).square().mean(dim=(1, 2, 3))
            classes = torch.from_numpy(maps.classes[i : i + CHUNK].astype(np.int64))
            right = (p.head.logits(pixels).argmax(dim=1) == classes).float().mean(dim=(1, 2))
            out.append(torch.stack([lost, self.prior.nats(codes), right]))
        lost, nats, right = torch.cat(out, dim=1).double().numpy()
        return {"reconstruction": lost, "code nats": nats, "cells read right": right}

    def save(self, folder: Path) -> None:
        """Write `prior`, `vqvae` and `head`, each `.safetensors`."""
        for name, module in (("prior", self.prior), ("vqvae", self.parts.vqvae), ("head", self.parts.head)):
            save_weights(module, folder / f"{name}.safetensors")


def save_weights(module: nn.Module, file: Path) -> None:
    """Parameters and buffers as safetensors."""
    from safetensors.torch import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}, file)
