"""The default `victim` of a KVPolicy agrees with its `select`, and the roles can be imported by name."""

from __future__ import annotations

import inspect

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tian.spec
from tian.plugins.hookspecs import HOOK_OF, ROLES, known_hooks
from tian.plugins.registry import role_class
from tian.spec import KVPolicy
from tian.testing.fakes import FakeKVPolicy


class Recent(KVPolicy):
    def __init__(self, budget):
        self.budget = budget

    def capacity(self, layer, n_layers, prompt_len):
        return self.budget

    def select(self, score, token, capacity):
        T = token.shape[-1]
        return torch.arange(T - capacity, T).expand(*token.shape[:2], capacity)


def shuffled_slots(B, H, n, seed):
    """Random slot order: rank `[B, H, n]` int32, a permutation of 0..n-1 a row."""
    return torch.rand(B, H, n, generator=torch.Generator().manual_seed(seed)).argsort(-1).int()


@given(capacity=st.integers(1, 12), B=st.integers(1, 3), H=st.integers(1, 3), seed=st.integers(0, 999))
def test_the_victim_is_the_one_token_select_would_drop(capacity, B, H, seed):
    rank = shuffled_slots(B, H, capacity + 1, seed)
    # Few distinct scores, so that ties are common.
    score = torch.randint(0, 3, rank.shape, generator=torch.Generator().manual_seed(seed + 1)).float()
    policy = FakeKVPolicy(capacity)
    victim = policy.victim(score, rank, capacity)
    assert victim.shape == (B, H)
    for b in range(B):
        for h in range(H):
            slots = sorted(range(capacity + 1), key=lambda s: int(rank[b, h, s]))
            row = score[b, h, slots].reshape(1, 1, -1)
            kept = policy.select(row, torch.arange(capacity + 1).reshape(1, 1, -1), capacity).flatten().tolist()
            (gone,) = set(range(capacity + 1)) - set(kept)
            assert int(victim[b, h]) == slots[gone]
            assert int(rank[b, h, victim[b, h]]) != capacity  # the newest stays


@given(capacity=st.integers(1, 20), seed=st.integers(0, 99))
def test_without_scores_one_shared_row_of_bookkeeping_is_enough(capacity, seed):
    rank = shuffled_slots(1, 1, capacity + 1, seed)
    victim = Recent(capacity).victim(None, rank, capacity)
    assert victim.shape == (1, 1)
    assert int(rank.flatten()[victim]) == 0  # the oldest


def test_the_default_victim_changes_none_of_its_arguments():
    rank = shuffled_slots(2, 2, 5, 0)
    score = torch.rand(2, 2, 5)
    before = rank.clone(), score.clone()
    FakeKVPolicy(4).victim(score, rank, 4)
    assert torch.equal(rank, before[0])
    assert torch.equal(score, before[1])


@pytest.mark.parametrize("role", ROLES)
def test_every_role_is_an_abstract_class_with_a_hook_a_version_and_documentation(role):
    cls = role_class(role)
    assert inspect.isabstract(cls)
    assert cls.SPEC == 1
    assert HOOK_OF[role] in known_hooks()
    for name in [cls.__name__, *cls.__abstractmethods__]:
        assert inspect.getdoc(cls if name == cls.__name__ else getattr(cls, name)), name


def test_every_exported_name_resolves_and_others_do_not():
    for name in tian.spec.__all__:
        assert getattr(tian.spec, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        tian.spec.Nothing  # noqa: B018
