"""@@name@@ keeps the contract of role model; `tian show model` prints it."""

import torch

from tian.testing import conformance


def batch(seed, n):
    """A batch of n rows with targets."""
    generator = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(n, 1, generator=generator), "target": torch.randn(n, generator=generator)}


Test@@Class@@ = conformance.model(
    "@@name@@/@@name@@",
    options=[{"width": 8}, {"width": 4, "depth": 1}],
    bad_options=[{"width": 0}, {"depth": 0}],
    batch=batch,
)
