"""Folders of runs that were never trained, and runs on them; loaded by path, tests are not a package."""

import numpy as np
import torch
from omegaconf import OmegaConf

from tian.runs.execute import run
from tian.runs.rundir import create
from tian_genco.learn.designs import Layout
from tian_genco.learn.model import DesignGenerator, GeneratorShape, build


def generator_run(folder, *, height=6, width=7, tiles=8, recipe="genco/zelda", weights=True):
    """A run directory as genco/zelda leaves it, with the first weights of a generator."""
    config = {"recipe": recipe, "seed": 0, "train": {"costs": "logit"}, "grad": {"tie_seed": 0}}
    made = create(folder, OmegaConf.create(config))
    made.set_status("finished", name=recipe)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(made.config))
    made.release()
    if weights:
        shape = GeneratorShape(Layout(tiles, height, width), nz=4, channels=4)
        net = build(shape, seed=0)
        with torch.no_grad():  # some variety, and few enemies
            net.head.weight *= 4
            net.place[4:7] -= 9
        DesignGenerator.of(shape, net).save_weights(folder / "generator")
    return folder


def sample(source, folder, *overrides):
    """A run of genco/sample."""
    return run("genco/sample", [f"from={source}", "reference=8", *overrides], folder=folder)


def value(result, name, **by):
    """The one measurement of that name."""
    found = [m for m in result.measurements if m.name == name and by.items() <= m.by.items()]
    assert len(found) == 1, [m.name for m in result.measurements]
    return found[0].value


def designs(folder):
    """The grids of a run."""
    with np.load(folder / "designs.npz") as file:
        return file["designs"]
