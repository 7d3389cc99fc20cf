"""Options of `genco/warcraft`; no torch, so that composing a config stays light."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from tian.errors import InvalidInput
from tian.training.options import TrainerOptions
from tian_genco.learn.options import EvalOptions, SampleOptions

Kind = Literal["none", "path", "tile-mean"]


@dataclass
class MapData:
    """Maps to learn from."""

    path: str | None = (
        None  # a folder with the .npy files of the Warcraft II maps, 12x12 to 30x30; null: made on the spot
    )
    size: int = 12  # cells of a side of the maps that are made
    train: int = 4000  # maps to learn from; of a folder that many at most
    reference: int = 1000  # further maps to be compared with; of a folder its split `test`

    def __post_init__(self) -> None:
        if self.size < 4:
            raise InvalidInput(f"data.size must be >= 4 cells, got {self.size}")
        if self.train < 2 or self.reference < 2:
            raise InvalidInput(f"data.train and reference must be >= 2, got {self.train} and {self.reference}")


@dataclass
class ObjectiveOptions:
    """What samples are steered towards in the second stage of training."""

    kind: Kind = "path"  # path: cheap shortest paths; tile-mean: cheap cells, no solver; none: training as before
    weight: float = 0.1  # of the objective beside the nats of a map
    samples: int = 64  # maps drawn from the prior in each step

    def __post_init__(self) -> None:
        check_kinds("objective.kind", [self.kind])
        if not 0 <= self.weight < float("inf") or self.samples < 1:
            raise InvalidInput(
                f"need objective.weight >= 0 and finite, and samples >= 1, got {self.weight} and {self.samples}"
            )


@dataclass
class VaeOptions:
    """The variational autoencoder of terrain classes."""

    latent: int = 24  # length of z
    width: int = 32  # channels of the hidden maps
    kl: float = 0.5  # weight of the divergence from the prior

    def __post_init__(self) -> None:
        if self.latent < 1 or self.width < 1 or self.kl < 0:
            raise InvalidInput(
                f"vae.latent and width must be >= 1 and kl >= 0, got {self.latent}, {self.width} and {self.kl}"
            )


@dataclass
class VqOptions:
    """The autoencoder of images with discrete codes, one a cell, its prior over codes, and the reader of costs."""

    codes: int = 128  # entries of the codebook
    dims: int = 64  # length of an entry
    width: int = 32  # channels of the hidden maps
    commitment: float = 0.25  # weight of keeping encodings near their codes
    decay: float = 0.99  # of the moving averages that the codes are
    prior_width: int = 128  # state of the prior over codes
    head_steps: int = 200  # steps of the network that reads costs off an image
    code_steps: int = 400  # steps of the autoencoder

    def __post_init__(self) -> None:
        if min(self.codes - 1, self.dims, self.width, self.prior_width, self.head_steps, self.code_steps) < 1:
            raise InvalidInput(f"vqvae needs two codes, and sizes and steps >= 1, got {self}")
        if self.commitment < 0 or not 0 <= self.decay < 1:
            raise InvalidInput(
                f"vqvae.commitment must be >= 0 and decay in [0, 1), got {self.commitment} and {self.decay}"
            )


@dataclass
class StageOptions:
    """Two stages: what all objectives share, then a continuation for each."""

    shared: int = 500  # steps without an objective, of the VAE or of the prior over codes
    steered: int = 500  # steps with it
    batch: int = 64  # training maps a step
    lr: float = 2e-3  # of Adam, constant but for the steered stage
    final: float = 0.1  # share of it at the end of the steered stage, a cosine away: arms are compared at rest

    def __post_init__(self) -> None:
        if self.shared < 1 or self.steered < 1 or self.batch < 1 or self.lr <= 0 or not 0 <= self.final <= 1:
            raise InvalidInput(
                f"need train.shared, steered and batch >= 1, lr > 0 and final within 0..1, got {self.shared}, {self.steered}, {self.batch}, {self.lr}, {self.final}"
            )


@dataclass
class WarcraftOptions:
    """Options of `genco/warcraft`."""

    model: Literal["vae", "vqvae"] = "vae"  # vae: on terrain classes; vqvae: on images, costs read by a network
    data: MapData = field(default_factory=MapData)
    objective: ObjectiveOptions = field(default_factory=ObjectiveOptions)
    compare: list[str] = field(
        default_factory=lambda: ["none"]
    )  # kinds of objective trained beside, at the same weight
    curve: list[float] = field(default_factory=list)  # further weights of the objective
    vae: VaeOptions = field(default_factory=VaeOptions)
    vqvae: VqOptions = field(default_factory=VqOptions)
    train: StageOptions = field(default_factory=StageOptions)
    solver: dict[str, Any] = field(default_factory=lambda: {"use": "genco/grid-path"}, metadata={"role": "solver"})
    sample: SampleOptions = field(default_factory=SampleOptions)
    eval: EvalOptions = field(default_factory=lambda: EvalOptions(critic_steps=0))
    trainer: TrainerOptions = field(  # a map has a hundred nats, so a limit of 1 on the gradient would set its length
        default_factory=lambda: TrainerOptions(max_steps=1, clip=0.0, accelerator="cpu", checkpoint_every=250)
    )
    threads: int = 1  # CPU threads; the order of sums, and with it every later digit, depends on them

    def __post_init__(self) -> None:
        if self.model not in ("vae", "vqvae"):
            raise InvalidInput(f"model must be vae or vqvae, got {self.model!r}")
        check_kinds("compare", self.compare)
        if self.data.reference <= self.eval.k:
            raise InvalidInput(f"data.reference must be > eval.k = {self.eval.k}, got {self.data.reference}")
        if not all(0 < w < float("inf") for w in self.curve):
            raise InvalidInput(
                f"curve must hold weights > 0, got {list(self.curve)}", hint="compare=[none] is weight 0"
            )


def check_kinds(where: str, kinds: list[Any]) -> None:
    """Refuse what is no kind of objective."""
    wrong = [k for k in kinds if k not in get_args(Kind)]
    if wrong:
        raise InvalidInput(f"{where}: {wrong[0]!r} is none of {', '.join(get_args(Kind))}")
