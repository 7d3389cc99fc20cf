"""A design as a network of resistors: what reaches the outputs, differentiable. A stand-in, no electromagnetics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tian.errors import InvalidInput
from tian_genco.devices.brush import Cell

MATERIAL, VOID = 1.0, 1e-3  # conductance of a cell, in units of that of material
CONTACT = 1.0  # conductance between a contact and its cell, in the same unit


class Flow(NamedTuple):
    """Potentials `[B, H, W]` in volts, and the currents `[B, K]` into the outputs."""

    potential: Tensor
    currents: Tensor


class Network(nn.Module):
    r"""Cells are nodes, neighbours are joined by half of each cell in series; one volt at the input, outputs at zero.

    A cell of density x has the conductance g = void + x (material - void), neighbours a and b are joined by
    2 g_a g_b / (g_a + g_b), and contacts by `CONTACT` to their cells. With L the weighted Laplacian and C the diagonal of
    contact conductances, (L + C) v = CONTACT e_input; the current into output k is CONTACT v_k.

    Args:
        height: rows H.
        width: columns W.
        source: cell of the input.
        sinks: K cells of the outputs.

    Raises:
        InvalidInput: a contact outside the grid, or two at one cell.
    """

    a: Tensor  # [E] first cell of each resistor
    b: Tensor  # [E] second cell
    contacts: Tensor  # [1 + K] cells of the input and the outputs
    entries: Tensor  # [4 E + 1 + K] places in the flattened matrix

    def __init__(self, *, height: int, width: int, source: Cell, sinks: Sequence[Cell]) -> None:
        super().__init__()
        self.height, self.width = height, width
        cells = [source, *sinks]
        if len(set(cells)) < len(cells) or not all(0 <= r < height and 0 <= c < width for r, c in cells):
            raise InvalidInput(f"contacts must be different cells of {height} x {width}, got {cells}")
        number = torch.arange(height * width).view(height, width)
        a = torch.cat([number[:, :-1].reshape(-1), number[:-1].reshape(-1)])
        b = torch.cat([number[:, 1:].reshape(-1), number[1:].reshape(-1)])
        n = height * width
        contacts = torch.tensor([r * width + c for r, c in cells])
        self.register_buffer("a", a)
        self.register_buffer("b", b)
        self.register_buffer("contacts", contacts)
        self.register_buffer(
            "entries", torch.cat([a * n + a, b * n + b, a * n + b, b * n + a, contacts * n + contacts])
        )

    def forward(self, x: Tensor) -> Flow:
        """The flow through designs `x [B, H, W]` of densities 0 to 1, any floating type; computed in float64.

        Raises:
            InvalidInput: another shape, or a density outside 0 to 1 (or NaN).
        """
        if x.dim() != 3 or tuple(x.shape[1:]) != (self.height, self.width):
            raise InvalidInput(f"designs must be [B, {self.height}, {self.width}], got {list(x.shape)}")
        if not bool(((x >= -1e-6) & (x <= 1 + 1e-6)).all()):
            raise InvalidInput("densities must be between 0 and 1", hint="pass x of a solver, or a softmax")
        g = VOID + (MATERIAL - VOID) * x.double().flatten(1)
        B, n = g.shape
        joined = 2 * g[:, self.a] * g[:, self.b] / (g[:, self.a] + g[:, self.b])
        contacts = torch.full((B, len(self.contacts)), CONTACT, dtype=g.dtype)
        values = torch.cat([joined, joined, -joined, -joined, contacts], dim=1)
        matrix = g.new_zeros(B, n * n).index_add(1, self.entries, values).view(B, n, n)
        injected = g.new_zeros(n, 1)
        injected[self.contacts[0]] = CONTACT
        v = torch.linalg.solve(matrix, injected.expand(B, n, 1))[:, :, 0]
        return Flow(v.view_as(x), CONTACT * v[:, self.contacts[1:]])

    def strengths(self, x: Tensor) -> Tensor:
        """Mean of the absolute currents on the sides of each cell, `[B, H, W]`, for pictures."""
        g = VOID + (MATERIAL - VOID) * x.double().flatten(1)
        v = self(x).potential.flatten(1)
        joined = 2 * g[:, self.a] * g[:, self.b] / (g[:, self.a] + g[:, self.b])
        current = (joined * (v[:, self.a] - v[:, self.b])).abs()
        return torch.zeros_like(g).index_add(1, self.a, current / 2).index_add(1, self.b, current / 2).view_as(x)


def simulated_loss(currents: Tensor, targets: Sequence[float]) -> Tensor:
    """|currents - targets|^2 / |targets|^2, `[B]`: 0 on target, 1 when nothing arrives."""
    wanted = torch.tensor(targets, dtype=currents.dtype)
    return (currents - wanted).square().sum(1) / wanted.square().sum()
