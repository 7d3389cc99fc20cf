"""Claims of GenCO about maps for path planning, arXiv 2310.02442: an objective of the solver steers what is generated."""

from __future__ import annotations

from typing import Any

from tian.claims import Check, Claim, Le, World

PAPER = "2310.02442"
STAND_IN = (
    "12 x 12 terrain made on the spot (synthetic) in place of Warcraft II maps; a VAE of classes in place of a VQ-VAE"
)
WORLDS = (World("terrain", 1, "tian_genco:paths/terrain.py"),)


def _cpu(kind: str, **more: Any) -> dict[str, Check]:
    """A check of `genco/warcraft`; the control has another objective."""
    shared: dict[str, Any] = {"seeds": 5, "budget_s": 900.0, "stands_in": STAND_IN, "worlds": WORLDS}
    overrides = ("objective.kind=path", "compare=[none]")
    check = Check(
        config="genco/warcraft", overrides=overrides, control=(f"objective.kind={kind}",), **{**shared, **more}
    )
    return {"cpu": check}


def _images(kind: str, **more: Any) -> dict[str, Check]:
    """The same on images, with a VQ-VAE and a prior over codes, on a GPU."""
    return {
        scale: Check(
            config=config,
            overrides=("objective.kind=path", "compare=[none]", "trainer.accelerator=gpu"),
            control=(f"objective.kind={kind}",),
            seeds=5,
            budget_s=36000.0,
            stands_in="terrain made on the spot and drawn (synthetic) in place of Warcraft II maps",
            worlds=WORLDS,
            **more,
        )
        for scale, config in (("gpu", "genco/warcraft-vqvae"), ("paper", "genco/warcraft-paper"))
    }


CLAIMS = [
    Claim(
        id="genco/path-cost-steers-maps",
        paper=PAPER,
        where="map creation: path loss",
        promises=("GC5", "GC7"),
        says=(
            "with the cost of the shortest path added to its loss, a generator's maps have paths at most 0.7 times as dear as "
            "those of the same generator without it"
        ),
        checks=_cpu("none", metric="path cost over that without objective", holds=Le(0.7))
        | _images("none", metric="path cost over that without objective", holds=Le(0.7)),
    ),
    Claim(
        id="genco/path-cost-keeps-patterns",
        where="ours: the control the paper does not have",
        says=(
            "the solver's objective leaves the patterns of the maps within a Jensen-Shannon divergence of 0.02 bit of the data; "
            "cheap cells in general, an objective without a solver that gets nearly all of the lower path cost, do not"
        ),
        expected="inconclusive",
        because="at 0.018 [0.012, 0.025] five seeds do not tell it from the bar; cheap cells lie well above, 0.043 [0.030, 0.056]",
        checks=_cpu("tile-mean", metric="pattern JSD", by={"maps": "ours"}, holds=Le(0.02)),
    ),
]
