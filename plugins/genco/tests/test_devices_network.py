"""The resistor network against closed forms and the laws every such network obeys."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tian.errors import InvalidInput
from tian_genco.devices.network import CONTACT, MATERIAL, VOID, Network, simulated_loss

SEEDS = st.integers(0, 10**6)


def random_designs(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def wire(length, width=1):
    """A wire of all material from its left end to its right end."""
    return Network(height=width, width=length, source=(0, 0), sinks=[(0, length - 1)])


@pytest.mark.parametrize("length", [2, 3, 8])
def test_resistors_in_series_add(length):
    current = wire(length)(torch.ones(1, 1, length)).currents
    resistance = 2 / CONTACT + (length - 1) / MATERIAL
    assert current.item() == pytest.approx(1 / resistance, rel=1e-12)
    one_void = torch.ones(1, 1, length)
    one_void[0, 0, 1] = 0.0
    sides = 1 if length == 2 else 2  # half cells of void, each in series with a half cell of material
    resistance += sides * (0.5 / VOID - 0.5 / MATERIAL)
    assert wire(length)(one_void).currents.item() == pytest.approx(1 / resistance, rel=1e-9)


def test_conductances_in_parallel_add():
    # A ring of four cells: from one corner to the one across, two branches of two resistors.
    ring = Network(height=2, width=2, source=(0, 0), sinks=[(1, 1)])
    assert ring(torch.ones(1, 2, 2)).currents.item() == pytest.approx(1 / (2 / CONTACT + 1 / MATERIAL), rel=1e-12)


def test_equal_branches_share_the_current():
    fork = Network(height=3, width=4, source=(1, 0), sinks=[(0, 3), (2, 3)])
    upper, lower = fork(random_mirrored(3)).currents[0]
    assert upper.item() == pytest.approx(lower.item(), rel=1e-12)


def random_mirrored(seed):
    x = random_designs(seed, 1, 3, 4)
    return (x + x.flip(1)) / 2


@given(SEEDS)
def test_what_flows_in_flows_out(seed):
    network = Network(height=4, width=5, source=(2, 0), sinks=[(0, 4), (3, 4)])
    flow = network(random_designs(seed, 3, 4, 5))
    into = CONTACT * (1 - flow.potential[:, 2, 0])
    assert torch.allclose(flow.currents.sum(1), into, rtol=1e-9, atol=0)
    assert (flow.potential > 0).all()
    assert (flow.potential < 1).all()


@given(SEEDS)
def test_a_mirrored_design_swaps_the_outputs(seed):
    network = Network(height=5, width=4, source=(2, 0), sinks=[(1, 3), (3, 3)])
    x = random_designs(seed, 2, 5, 4)
    assert torch.allclose(network(x).currents, network(x.flip(1)).currents.flip(1), rtol=1e-9, atol=0)


@given(SEEDS)
def test_source_and_sink_can_be_exchanged(seed):
    x = random_designs(seed, 2, 4, 4)
    there, back = ((0, 0), (2, 3)), ((2, 3), (0, 0))
    one, other = (Network(height=4, width=4, source=a, sinks=[b])(x).currents for a, b in (there, back))
    assert torch.allclose(one, other, rtol=1e-9, atol=0)  # reciprocity


@given(SEEDS)
def test_more_material_never_lowers_the_transmission(seed):
    network = Network(height=4, width=5, source=(1, 0), sinks=[(2, 4)])
    x = random_designs(seed, 3, 4, 5)
    more = x + (1 - x) * random_designs(seed + 1, 3, 4, 5)
    assert (network(more).currents >= network(x).currents * (1 - 1e-12)).all()  # Rayleigh
    x.requires_grad_()
    network(x).currents.sum().backward()
    assert (x.grad >= -1e-12).all()


def test_the_derivative_is_the_derivative():
    network = Network(height=3, width=4, source=(1, 0), sinks=[(0, 3), (2, 3)])
    x = (0.1 + 0.8 * random_designs(0, 2, 3, 4)).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: simulated_loss(network(v).currents, [0.2, 0.1]), (x,))


def test_strengths_of_a_wire_are_its_current():
    network = wire(5)
    x = torch.ones(1, 1, 5)
    inner = network.strengths(x)[0, 0, 1:-1]
    assert torch.allclose(inner, network(x).currents[0].expand(3), rtol=1e-9)


def test_designs_of_a_batch_do_not_mix():
    network = Network(height=3, width=4, source=(1, 0), sinks=[(0, 3), (2, 3)])
    x = random_designs(5, 3, 3, 4).float()
    before = x.clone()
    whole = network(x).currents
    assert whole.dtype == torch.float64
    assert torch.equal(x, before)
    assert torch.allclose(whole, torch.cat([network(v[None]).currents for v in x]), rtol=1e-12)


def test_the_loss_is_nought_on_target_and_one_when_nothing_arrives():
    currents = torch.tensor([[0.3, 0.1], [0.0, 0.0], [0.6, 0.2]], dtype=torch.float64)
    assert np.allclose(simulated_loss(currents, [0.3, 0.1]), [0, 1, 1])


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.ones(3, 4), r"must be \[B, 3, 4\]"),
        (torch.ones(1, 4, 3), r"must be \[B, 3, 4\]"),
        (2 * torch.ones(1, 3, 4), "between 0 and 1"),
        (torch.full((1, 3, 4), float("nan")), "between 0 and 1"),
    ],
)
def test_other_designs_are_refused(x, said):
    with pytest.raises(InvalidInput, match=said):
        Network(height=3, width=4, source=(1, 0), sinks=[(0, 3)])(x)


@pytest.mark.parametrize("sinks", [[(1, 0)], [(0, 4)], [(0, 3), (0, 3)]])
def test_contacts_must_be_different_cells_of_the_grid(sinks):
    with pytest.raises(InvalidInput, match="different cells of 3 x 4"):
        Network(height=3, width=4, source=(1, 0), sinks=sinks)
