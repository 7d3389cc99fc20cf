"""The offline optimum: against brute force, against a linear program, above every policy, and replayed in a cache."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import tian
from tian.errors import DataError, InvalidInput
from tian.hf import attach
from tian_kvcache.plan import Cursor, Plan, load_plan, save_plan, victims_of
from tian_kvcache.policy_options import PlanOptions
from tian_kvcache.traces import attention_trace, retained, simulate, visible_global, visible_official

spec = importlib.util.spec_from_file_location("kv_reference", Path(__file__).with_name("kv_reference.py"))
ref = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ref)

NEEDS_ORTOOLS = pytest.mark.skipif(importlib.util.find_spec("ortools") is None, reason="needs ortools (extra regret)")


def attention(T, *, seed, sharp=2.0, sink=1.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(T, T)) * sharp
    logits[:, 0] += sink
    logits[np.triu_indices(T, 1)] = -np.inf
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


@NEEDS_ORTOOLS
@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("recent", [0, 1])
def test_it_equals_trying_every_plan(k, recent):
    from tian_kvcache.optimum import optimum

    for seed in range(40):
        A = attention(9, seed=seed)
        found = optimum(A, k, recent=recent)
        assert found.value == pytest.approx(ref.best(np.tril(A, -1).tolist(), k, recent), abs=1e-9)
        assert found.value <= found.upper <= found.value + 1e-9


@NEEDS_ORTOOLS
def test_it_equals_the_linear_program_over_every_token_and_row():
    linprog = pytest.importorskip("scipy.optimize").linprog
    from scipy.sparse import lil_matrix

    from tian_kvcache.optimum import optimum

    T, k = 24, 4
    for seed in range(5):
        A = attention(T, seed=seed)
        index = {(j, t): i for i, (j, t) in enumerate((j, t) for t in range(T) for j in range(t))}
        rows = lil_matrix((len(index) + T, len(index)))
        limit = np.zeros(len(index) + T)
        for (j, t), i in index.items():
            if (j, t - 1) in index:  # who left does not come back
                rows[i, i], rows[i, index[j, t - 1]] = 1, -1
            rows[len(index) + t, i] = 1
        limit[len(index) :] = k
        cost = np.array([-A[t, j] for j, t in index])
        best = -linprog(cost, A_ub=rows.tocsr(), b_ub=limit, bounds=(0, 1), method="highs").fun
        assert optimum(A, k).value == pytest.approx(best, abs=1e-8)


POLICIES = [
    ("window", {}), ("streaming", {"sinks": 1, "recent": 7}), ("h2o", {"heavy": 4, "recent": 4}), ("tova", {}),
    ("h2o-decay", {"heavy": 4, "recent": 4}), ("sink-h2o", {"sinks": 1, "heavy": 3, "recent": 4}),
    ("random", {"sinks": 1}), ("h2o", {"heavy": 7, "recent": 1}),
]  # fmt: skip


@NEEDS_ORTOOLS
@pytest.mark.parametrize("prompt", [0, 20])
def test_no_policy_retains_more(prompt):
    from tian_kvcache.optimum import optimum

    trace = torch.from_numpy(np.stack([attention(64, seed=s) for s in range(3)])).float()
    best = [optimum(t.numpy(), 8, recent=1, start=prompt) for t in trace]
    for name, options in POLICIES:
        policy = tian.load("kv_policy", name, **options)
        kept = retained(trace, simulate(trace, policy, 8, prompt=prompt), prompt=prompt)
        assert all(kept[i] <= b.upper + 1e-9 for i, b in enumerate(best)), name
        assert not all(kept[i] >= b.value - 1e-9 for i, b in enumerate(best)), name
    oracle = retained(trace, visible_global(trace, heavy=4, recent=4), prompt=prompt)
    assert all(oracle[i] <= b.upper + 1e-9 for i, b in enumerate(best))


@NEEDS_ORTOOLS
def test_the_certificate_follows_from_the_rows_themselves():
    from tian_kvcache.optimum import optimum

    A = attention(80, seed=1)
    found = optimum(A, 10, recent=3)
    earlier = np.tril(found.visible, -1)
    assert earlier.sum(axis=1).max() == 10
    assert found.value == pytest.approx((A * earlier).sum(), abs=1e-12)
    t, j = np.indices(A.shape)
    assert found.visible[(t - j <= 3) & (t >= j)].all()  # protected
    assert not (earlier[1:] & ~found.visible[:-1])[(t[1:] - j[1:]) > 1].any()  # who left did not come back
    assert (found.upper - found.value) / found.value < 1e-9


@NEEDS_ORTOOLS
def test_enough_slots_keep_everything_and_a_protected_part_of_all_is_the_window():
    from tian_kvcache.optimum import optimum

    A = attention(30, seed=2)
    assert optimum(A, 30).value == pytest.approx(np.tril(A, -1).sum(), abs=1e-12)
    trace = torch.from_numpy(A)[None].float()
    window = retained(trace, simulate(trace, tian.load("kv_policy", "window", recent=5), 5))
    assert optimum(A, 5, recent=5).value == pytest.approx(float(window), abs=1e-5)


@NEEDS_ORTOOLS
@pytest.mark.parametrize(
    ("k", "more", "text"), [(0, {}, "k >= 1"), (2, {"recent": 3}, "recent"), (2, {"start": 99}, "start")]
)
def test_sizes_out_of_range_are_refused(k, more, text):
    from tian_kvcache.optimum import optimum

    with pytest.raises(InvalidInput, match=text):
        optimum(attention(9, seed=0), k, **more)


def test_logits_instead_of_weights_are_refused():
    from tian_kvcache.optimum import optimum

    with pytest.raises(InvalidInput, match="not logits"):
        optimum(np.full((4, 4), -1.0), 2)


def test_without_the_solver_the_error_names_the_extra(monkeypatch):
    from tian.errors import MissingDependency
    from tian_kvcache import optimum

    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(optimum.importlib, "import_module", absent)
    with pytest.raises(MissingDependency) as caught:
        optimum.optimum(attention(9, seed=0), 2)
    assert "[regret]" in caught.value.hint


# -- replaying -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    from tian.hf.loading import load_model

    return load_model(None)


@pytest.fixture(scope="module")
def planned(model, tmp_path_factory):
    """Optimal plans of every head for 40 tokens of the shipped model, as end rows, and the file."""
    from tian_kvcache.optimum import optimum

    ids = torch.randint(1, 1000, (40,), generator=torch.Generator().manual_seed(0))
    trace = attention_trace(model, ids)
    found = [[optimum(head.numpy(), 6, recent=1) for head in layer] for layer in trace]
    path = tmp_path_factory.mktemp("plan") / "plan.npz"
    save_plan(path, np.array([[victims_of(o.end, 6) for o in layer] for layer in found]), 6)
    return ids, trace, found, path


@NEEDS_ORTOOLS
@pytest.mark.parametrize("first", [1, 5, 7, 15])
def test_a_plan_replays_the_optimum_in_a_running_cache(model, planned, first):
    """Whatever the length of the prompt: below, at and above the capacity."""
    ids, _, found, path = planned
    policy = tian.load("kv_policy", "plan", path=str(path))
    with attach(model, kv=policy) as cache, torch.inference_mode():
        for again in range(2):  # a reset cache starts over
            cache.reset()
            pieces = [ids[:first], *ids[first:].split(1)]
            seen = 0
            for piece in pieces:
                model(input_ids=piece[None], past_key_values=cache, use_cache=True)
                seen += len(piece)
                for i, layer in enumerate(found):
                    kept = cache.kept(i)[0].tolist()
                    for h, best in enumerate(layer):
                        wanted = {j for j in range(seen) if best.end[j] >= seen}
                        assert wanted <= set(kept[h]), (again, seen, i, h)
                        assert len(kept[h]) == min(seen, 6)


@NEEDS_ORTOOLS
def test_a_replayed_plan_retains_exactly_the_optimum(planned):
    _, trace, found, path = planned
    plan = Plan(PlanOptions(str(path)))
    for i, layer in enumerate(found):
        visible = simulate(trace[i], plan, plan.capacity(i, len(found), None))
        kept = retained(trace[i], visible)
        assert kept.tolist() == pytest.approx([o.value for o in layer], abs=1e-6)


def steps(cursor, plan, count):
    """Ranks evicted along a stream, by victim and by select."""
    C, kept = int(cursor), list(range(int(cursor)))
    rank = torch.arange(C + 1).int()[None, None]
    other = plan.capacity(0, 1, None)
    for t in range(C, count):
        kept.append(t)
        slot = plan.victim(torch.zeros(1, 1, C + 1), rank, cursor)
        by_step = int(rank[0, 0, slot])
        keep = plan.select(None, torch.tensor([[kept]]), other)[0, 0].tolist()
        yield by_step, (set(range(C + 1)) - set(keep)).pop()
        kept.pop(by_step)
        gone = rank.gather(2, slot[..., None])
        rank -= (rank > gone).int()
        rank.scatter_(2, slot[..., None], C)


def test_both_rules_of_a_plan_agree_along_the_stream(tmp_path):
    rng = np.random.default_rng(0)
    ranks = np.concatenate([np.full(4, -1), rng.integers(0, 4, 20)]).astype(np.int32)[None, None]
    save_plan(tmp_path / "p.npz", ranks, 4)
    plan = Plan(PlanOptions(str(tmp_path / "p.npz")))
    found = list(steps(plan.capacity(0, 1, None), plan, 24))
    assert found == [(r, r) for r in ranks[0, 0, 4:].tolist()]
    (tmp_path / "p.json").write_text(json.dumps({"victim_rank": ranks.tolist(), "capacity": 4}))
    assert np.array_equal(load_plan(tmp_path / "p.json")[0], ranks)


def test_a_plan_does_not_go_on_in_the_middle_of_a_stream(tmp_path):
    save_plan(tmp_path / "p.npz", np.full((1, 1, 9), 0, dtype=np.int32), 2)
    plan = Plan(PlanOptions(str(tmp_path / "p.npz")))
    with pytest.raises(InvalidInput, match="read further already"):
        plan.victim(None, torch.tensor([[[1, 0, 2]]], dtype=torch.int32), plan.capacity(0, 1, None))


def test_a_plan_that_ends_says_so_and_needs_its_own_capacity(tmp_path):
    save_plan(tmp_path / "p.npz", np.full((1, 1, 3), 0, dtype=np.int32), 2)
    plan = Plan(PlanOptions(str(tmp_path / "p.npz")))
    rank = torch.arange(3).int()[None, None]
    cursor = plan.capacity(0, 1, None)
    assert isinstance(cursor, Cursor)
    assert plan.victim(None, rank, cursor).tolist() == [[0]]
    with pytest.raises(InvalidInput, match="covers 3 tokens"):
        plan.victim(None, rank, cursor)
    with pytest.raises(InvalidInput, match="capacity it gave"):
        plan.victim(None, rank, 2)


@pytest.mark.parametrize("content", [b"torn", None, b'{"victim_rank": [[1]], "capacity": 2}', b'{"capacity": 2}'])
def test_a_plan_that_cannot_be_read_is_named_with_what_to_do(tmp_path, content):
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"plan\.json") as caught:
        Plan(PlanOptions(str(path))).capacity(0, 1, None)
    assert "kvcache/regret" in caught.value.hint


def test_a_plan_for_another_number_of_layers_is_refused(tmp_path):
    save_plan(tmp_path / "p.npz", np.full((3, 1, 9), -1, dtype=np.int32), 2)
    with pytest.raises(DataError, match="3 layers, the model has 4"):
        Plan(PlanOptions(str(tmp_path / "p.npz"))).capacity(0, 4, None)


# -- variants ------------------------------------------------------------------------------------------------------------


def test_the_official_variant_equals_its_description_and_shows_the_gap():
    trace = torch.from_numpy(np.stack([attention(60, seed=s) for s in range(4)]))
    visible = visible_official(trace, heavy=3, recent=4)
    for head, seen in zip(trace, visible, strict=True):
        assert [set(torch.nonzero(r).flatten().tolist()) for r in seen] == ref.official(head.tolist(), 3, 4)
    late = visible[:, 8:]
    assert (late.sum(dim=-1) == 7).all()  # heavy + recent, the query included
    t = torch.arange(7, 59)
    assert not visible[:, t + 1, t + 1 - 4].any()  # leaving the band: invisible to one query ...
    back = visible[:, t[:-1] + 2, t[:-1] + 1 - 4]
    assert back.any()  # ... and some come back at the next
    with pytest.raises(InvalidInput, match="recent >= 1"):
        visible_official(trace, heavy=3, recent=0)


def test_the_oracle_uses_later_queries():
    trace = torch.full((1, 12, 12), 0.01).tril()
    trace[0, 11, 2] = 5.0  # only the last query looks there
    visible = visible_global(trace, heavy=1, recent=3)[0]
    assert visible[6:, 2].all()
    plain = simulate(trace, tian.load("kv_policy", "h2o", heavy=1, recent=3), 4)[0]
    assert not plain[11, 2]
