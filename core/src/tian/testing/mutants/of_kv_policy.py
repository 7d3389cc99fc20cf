"""Mutants of FakeKVPolicy."""

from __future__ import annotations

import random
from typing import Any

import torch

from tian.testing import conformance
from tian.testing.fakes import FakeKVPolicy
from tian.testing.mutants import mutant
from tian.testing.mutants.common import common_mutants, count, first

FAKE = K = FakeKVPolicy
SHARED: list[float] = []


def conform(target: Any) -> type:
    """Its conformance class."""
    return conformance.kv_policy(target, options=[{"budget": 4}], bad_options=[{"budget": 0}])


def _by_loop(self: Any, score: Any, rank: Any, capacity: int) -> Any:
    out = rank.new_zeros(rank.shape[:2], dtype=torch.int64)
    for b in range(rank.shape[0]):
        for h in range(rank.shape[1]):
            cut = (slice(b, b + 1), slice(h, h + 1))
            out[b, h] = K.victim(self, score[cut], rank[cut], capacity).item()
    return out


def _best(score: Any, capacity: int) -> Any:
    return score.topk(capacity, dim=-1).indices.sort(dim=-1).values


def _leaky(self: Any, score: Any, token: Any, capacity: int) -> Any:
    SHARED.append(1.0)
    return K.select(self, score if len(SHARED) % 3 else -score, token, capacity)


def _tired(self: Any, score: Any, token: Any, capacity: int) -> Any:
    return K.select(self, score if count(self) < 12 else -score, token, capacity)


MUTANTS = [
    *common_mutants(K, method="capacity"),
    mutant("capacity 0 in late layers", K, capacity=lambda s, layer, n_layers, prompt_len: 0 if layer > 20 else 4),
    mutant("capacity as a float", K, capacity=lambda s, layer, n_layers, prompt_len: 4.0),
    mutant("capacity falls with every call", K, capacity=lambda s, layer, n_layers, prompt_len: max(1, 5 - count(s))),
    mutant("capacity of the layer asked last", K, capacity=lambda s, layer, n_layers, prompt_len: 3 + count(s) % 2),
    mutant("needs a score nobody has", K, needs=frozenset({"entropy"})),
    mutant("needs two scores", K, needs=frozenset({"colsum", "last_row"})),
    mutant("positions of its own", K, positions="relative"),
    mutant("chunk_invariant not said", K, chunk_invariant=None),
    mutant("select as int32", K, select=lambda s, score, token, capacity: K.select(s, score, token, capacity).int()),
    mutant("select one too many", K, select=lambda s, score, token, capacity: K.select(s, score, token, capacity + 1)),
    mutant("select without heads", K, select=lambda s, score, token, capacity: K.select(s, score, token, capacity)[0]),
    mutant(
        "select as a list", K, select=lambda s, score, token, capacity: K.select(s, score, token, capacity).tolist()
    ),
    mutant(
        "select newest first", K, select=lambda s, score, token, capacity: K.select(s, score, token, capacity).flip(-1)
    ),
    mutant(
        "select the newest only, again and again",
        K,
        select=lambda s, score, token, capacity: K.select(s, score, token, capacity)[..., -1:].repeat(1, 1, capacity),
    ),
    mutant("select off by one", K, select=lambda s, score, token, capacity: K.select(s, score, token, capacity) + 1),
    mutant("select by weight alone", K, select=lambda s, score, token, capacity: _best(score, capacity)),
    mutant("select the lightest after a dozen calls", K, select=_tired),
    mutant("select with a count shared by all instances", K, select=_leaky),
    mutant(
        "select resets the scores",
        K,
        select=lambda s, score, token, capacity: first(K.select(s, score, token, capacity), score.zero_()),
    ),
    mutant(
        "victim renumbers the ranks",
        K,
        victim=lambda s, score, rank, capacity: first(K.victim(s, score, rank, capacity), rank.sub_(1)),
    ),
    mutant(
        "select breaks ties by torch's global generator",
        K,
        select=lambda s, score, token, capacity: K.select(s, score + torch.rand(score.shape) / 100, token, capacity),
    ),
    mutant(
        "victim draws a number it does not use",
        K,
        victim=lambda s, score, rank, capacity: first(K.victim(s, score, rank, capacity), random.random()),
    ),
    mutant(
        "select compares with the mean of the batch",
        K,
        select=lambda s, score, token, capacity: K.select(s, score - score.mean((0, 1), keepdim=True), token, capacity),
    ),
    mutant(
        "select decides for all heads by the first",
        K,
        select=lambda s, score, token, capacity: K.select(s, score[:, :1].expand_as(score), token, capacity),
    ),
    mutant("victim as int32", K, victim=lambda s, score, rank, capacity: K.victim(s, score, rank, capacity).int()),
    mutant("victim with a dimension more", K, victim=lambda s, score, rank, capacity: rank.argmin(-1, keepdim=True)),
    mutant("victim is the newest", K, victim=lambda s, score, rank, capacity: rank.argmax(-1)),
    mutant("victim is always the oldest", K, victim=lambda s, score, rank, capacity: rank.argmin(-1)),
    mutant(
        "victim names a rank where a slot is meant",
        K,
        victim=lambda s, score, rank, capacity: (
            rank.gather(-1, K.victim(s, score, rank, capacity)[..., None]).squeeze(-1).long()
        ),
    ),
    mutant("victim by a loop over values", K, victim=_by_loop),
    mutant("chunk_invariant claimed", K, chunk_invariant=True),
    mutant("victim_ranks with the newest among them", K, victim_ranks=lambda s, capacity: (0, capacity)),
    mutant("victim_ranks as a list", K, victim_ranks=lambda s, capacity: [0, 0]),
    mutant("victim_ranks the victim does not follow", K, victim_ranks=lambda s, capacity: (0, 0), victim=K.victim),
    mutant("contiguous claimed", K, contiguous=True),
    mutant(
        "select keeps one token less",
        K,
        select=lambda s, score, token, capacity: K.select(s, score, token, max(1, capacity - 1)),
    ),
]
