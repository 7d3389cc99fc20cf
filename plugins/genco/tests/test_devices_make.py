"""Designs made on the spot: valid, connected, and a function of seed and number alone."""

import numpy as np
import pytest
import torch

from tian.errors import InvalidInput
from tian_genco.devices.brush import BRUSHES, BrushRules
from tian_genco.devices.make import make_designs, ports, rules_of
from tian_genco.devices.network import Network


@pytest.mark.parametrize("brush", BRUSHES)
@pytest.mark.parametrize("size", [(7, 7), (9, 16), (12, 9)])
def test_every_design_is_valid_and_joins_its_ports(brush, size):
    rules = rules_of(*size, brush)
    designs = make_designs(40, seed=3, rules=rules)
    assert designs.dtype == np.uint8
    assert all(rules.broken(x.ravel().astype(float)) == "" for x in designs)
    source, *sinks = ports(*size)
    network = Network(height=size[0], width=size[1], source=source, sinks=sinks)
    assert (network(torch.from_numpy(designs)).currents > 0.015).all()  # through void alone some 0.001


def test_a_design_depends_on_seed_and_number_only():
    rules = rules_of(9, 16, "plus")
    many, few, other = (make_designs(n, seed=s, rules=rules) for n, s in ((30, 1), (10, 1), (30, 2)))
    assert np.array_equal(many[:10], few)
    assert len(np.unique(many.reshape(30, -1), axis=0)) >= 28
    assert (many != other).any(axis=(1, 2)).mean() > 0.9
    state = np.random.get_state()[1].copy()
    make_designs(3, seed=0, rules=rules)
    assert np.array_equal(state, np.random.get_state()[1])


def test_designs_of_a_seed_stay_as_they_are():
    rows = ["".join(".#"[v] for v in row) for row in make_designs(1, seed=0, rules=rules_of(7, 9, "plus"))[0]]
    assert rows == GOLDEN


GOLDEN = [
    ".....###.",
    ".########",
    "#########",
    "########.",
    ".########",
    "..######.",
    "...##....",
]


@pytest.mark.parametrize(
    ("n", "seed", "contacts", "said"),
    [(-1, 0, ((2, 0), (2, 4)), "must be >= 0"), (1, -1, ((2, 0), (2, 4)), "must be >= 0"), (1, 0, (), "two contacts")],
)
def test_senseless_requests_are_refused(n, seed, contacts, said):
    with pytest.raises(InvalidInput, match=said):
        make_designs(n, seed=seed, rules=BrushRules(5, 5, "plus", contacts))
