"""Training end to end at toy size: every loss, every kind of arm, resumed like uninterrupted, and refusals."""

import copy
import hashlib
import json

import numpy as np
import pytest
import torch

import tian
from tian.errors import DataError, InvalidInput, RunError
from tian.spec import Solution, Solver
from tian.testing import conformance
from tian_genco.grad.costs import Normaliser, ties
from tian_genco.learn.adversary import Adversarial, gradient_penalty
from tian_genco.learn.critic import TileCritic
from tian_genco.learn.designs import Layout
from tian_genco.learn.generator import TileGenerator, straight_through
from tian_genco.learn.match import CostHead
from tian_genco.learn.model import DesignGenerator
from tian_genco.learn.options import DesignGeneratorOptions
from tian_genco.levels.rules import LevelRules
from tian_genco.zelda import level_task

TINY = (
    "data.height=7", "data.width=9", "data.train=40", "data.reference=30", "generator.channels=4", "generator.nz=4",
    "train.plain=3", "train.through=2", "train.batch=6", "train.reals=10", "sample.n=12", "eval.critic_steps=0",
)  # fmt: skip

TestGenerator = conformance.model(
    "genco/generator",
    options=[{"height": 7, "width": 9, "channels": 4}, {"tiles": 3, "height": 5, "width": 6, "nz": 2, "channels": 3}],
    bad_options=[{"tiles": 1}, {"nz": 0}, {"height": 2}],
)


def go(tmp_path, *overrides, name="run", **more):
    return tian.run("genco/zelda", [*TINY, *overrides], folder=tmp_path / name, **more)


def value(result, name, designs="ours"):
    return next(m.value for m in result.measurements if m.name == name and m.by.get("designs") == designs)


def weights(path):
    return hashlib.sha256((path / "generator" / "generator.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("grad.name=identity", "train.costs=softmax"),
        ("grad.name=imle", "grad.samples=2"),
        ("grad.name=perturbed", "grad.samples=2"),
        ("train.adversary=fixed",),
        ("train.penalty=1.0",),
        ("train.loss=wgan-gp", "train.critic_steps=2"),
        ("train.loss=wgan-gp", "train.critic_steps=1", "train.adversary=fixed", "eval.critic_steps=2"),
        ("train=plain", "train.plain=3"),
    ],
    ids=lambda o: "-".join(o) or "default",
)
def test_whatever_is_trained_every_design_obeys(tmp_path, overrides):
    result = go(tmp_path, *overrides)
    assert value(result, "valid") == 1.0
    assert value(result, "valid without the solver") < 1.0
    designs = np.load(result.path / "designs.npz")["designs"]
    rules = LevelRules(7, 9)
    assert all(not rules.broken(x) for x in Layout(8, 7, 9).x(designs))
    report = (result.path / "report.html").read_text()
    assert "Against the data" in report
    assert report.count("<svg") >= 1


def test_designs_are_the_optimum_of_the_trained_generators_costs(tmp_path):
    result = go(tmp_path)
    model = DesignGenerator.load_weights(result.path / "generator")
    layout, rules = model.shape.layout, LevelRules(7, 9)
    head = CostHead(layout, "logit", normaliser=Normaliser(rules), tie_seed=0)
    rng = torch.Generator().manual_seed(2**20)
    with torch.no_grad():
        costs = head.final(model.net(*model.net.draw(12, rng)))
    batch = tian.load("solver", "genco/highs").solve_costs(rules.instance(), costs, time_limit_s=20)
    assert np.array_equal(layout.grids(batch.x), np.load(result.path / "designs.npz")["designs"])


def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path):
    """Stopped in the stage through the solver, whose estimator draws noise: weights and measures are the same."""
    overrides = ("grad.name=imle", "grad.samples=2", "train.through=5", "trainer.checkpoint_every=2")
    whole = go(tmp_path, *overrides, name="whole")
    with pytest.raises(KeyboardInterrupt), interrupted_after(3 + 4):
        go(tmp_path, *overrides, name="cut")
    cut = tian.run("genco/zelda", resume=tmp_path / "cut")
    assert weights(cut.path) == weights(whole.path)
    assert [m.value for m in cut.measurements] == [m.value for m in whole.measurements]


class interrupted_after:  # noqa: N801 - reads as a statement
    """Ctrl-C after so many training steps of a process."""

    def __init__(self, steps):
        self.steps = steps

    def __enter__(self):
        from tian_genco.learn import match

        self.match, self.forward, left = match, match.Matching.forward, [self.steps]

        def forward(module, **batch):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return self.forward(module, **batch)

        match.Matching.forward = forward
        return self

    def __exit__(self, *_):
        self.match.Matching.forward = self.forward


def test_the_cost_head_prices_the_likely_tile_lowest_and_ignores_what_rules_ignore():
    rules, layout = LevelRules(5, 6), Layout(8, 5, 6)
    head = CostHead(layout, "logit", normaliser=Normaliser(rules), tie_seed=3)
    logits = torch.randn(2, 8, 5, 6, generator=torch.Generator().manual_seed(0))
    final = head.final(logits)
    assert np.allclose(head.final(2.5 * logits), final, atol=1e-6)  # scale
    assert np.allclose(head.final(logits + torch.randn(2, 1, 5, 6)), final, atol=1e-6)  # a constant a cell
    assert np.allclose(head.final(logits) - ties(layout.n, 3), CostHead(layout, "logit", normaliser=Normaliser(rules), tie_seed=None).final(logits))  # fmt: skip
    flipped = logits.clone()
    flipped[0, 1, 2, 2] += 5.0
    column = rules.column(1, 2, 2)
    assert head.final(flipped)[0, column] < final[0, column]


def test_straight_through_is_hard_with_the_gradient_of_the_softmax():
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weight = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    hard = straight_through(logits)
    assert torch.equal(hard.detach().argmax(1), logits.argmax(1))
    assert torch.allclose(hard.detach().max(1).values, torch.ones(2, 4, 4))
    (got,) = torch.autograd.grad((hard * weight).sum(), logits)
    (want,) = torch.autograd.grad((logits.softmax(1) * weight).sum(), logits)
    assert torch.allclose(got, want)


def test_the_generator_starts_from_how_often_tiles_are_seen():
    net = TileGenerator(tiles=3, height=5, width=6, nz=2, channels=4)
    shares = torch.zeros(3, 5, 6)
    shares[0], shares[2, 2, 2], shares[0, 2, 2] = 1.0, 0.9, 0.1
    net.start_from(shares)
    likely = net.place.argmax(dim=0)
    assert likely[2, 2] == 2
    assert int((likely == 0).sum()) == 29
    z, noise = net.draw(7, torch.Generator().manual_seed(0))
    assert net(z, noise).shape == (7, 3, 5, 6)


def test_the_gradient_penalty_of_a_linear_critic():
    """The gradient of w.x is w everywhere: the penalty is (|w| - 1)^2."""
    critic = TileCritic(tiles=2, height=4, width=4)
    w = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0))
    critic.score = lambda x: (x * w).sum(dim=(1, 2, 3))
    a, b = torch.zeros(3, 2, 4, 4), torch.ones(3, 2, 4, 4)
    assert float(gradient_penalty(critic, a, b, torch.rand(3))) == pytest.approx((float(w.norm()) - 1) ** 2, rel=1e-5)


def test_a_fixed_critic_is_left_alone_and_an_updated_one_is_not(tmp_path):
    from tian_genco.learn import pipeline

    seen = {}
    real = pipeline.Pipeline.through

    def spy(self, net, train, grad, *, critic, part="through"):
        before = copy.deepcopy(critic.state_dict())
        found = real(self, net, train, grad, critic=critic, part=part)
        seen[train.adversary] = any(not torch.equal(v, critic.state_dict()[k]) for k, v in before.items())
        return found

    pipeline.Pipeline.through = spy
    try:
        for adversary in ("fixed", "updated"):
            go(tmp_path, "train.loss=wgan-gp", f"train.adversary={adversary}", "train.critic_steps=1", name=adversary)
    finally:
        pipeline.Pipeline.through = real
    assert seen == {"fixed": False, "updated": True}


def test_learning_rates_fall_to_a_tenth_of_whatever_is_updated(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        Adversarial, "on_train_end", lambda self: seen.append([o.param_groups[0]["lr"] for o in self.optimizers()])
    )
    go(
        tmp_path,
        "train.loss=wgan-gp",
        "train.critic_steps=2",
        "train.adversary=fixed",
        "train.lr=2",
        "train.lr_through=1",
    )
    assert seen == [pytest.approx([0.2, 0.2]), pytest.approx([0.1, 1.0])]


def test_weights_go_to_a_folder_and_back(tmp_path):
    model = DesignGenerator(DesignGeneratorOptions(height=5, width=6, channels=3))
    model.save_weights(tmp_path)
    again = DesignGenerator.load_weights(tmp_path)
    assert again.fingerprint() == model.fingerprint()
    other = DesignGenerator(DesignGeneratorOptions(height=5, width=6, channels=3, seed=1))
    assert other.fingerprint() != model.fingerprint()
    (tmp_path / "generator.json").write_text("{}")
    with pytest.raises(DataError, match="no generator can be read"):
        DesignGenerator.load_weights(tmp_path)


def test_levels_from_files(tmp_path):
    folder = tmp_path / "levels"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.txt").write_text(f"wwwwwww\nwA..{'.+'[i % 2]}{'+.'[i % 2]}w\nw..w..w\nw..g.1w\nwwwwwww\n")
    few = (f"data.path={folder}", "train.reals=3")
    with pytest.raises(InvalidInput, match="more than 3 reference"):
        go(tmp_path, *few, name="k")
    few = (*few, "eval.k=1")
    result = go(tmp_path, *few)
    assert value(result, "valid") == 1.0
    assert "3 levels from levels" in json.loads((result.path / "results.json").read_text())["label"]
    (folder / "bad.txt").write_text("wwwwwww\nwA..+?w\nw..w..w\nw..g.1w\nwwwwwww\n")
    with pytest.raises(DataError, match=r"'\?'"):
        go(tmp_path, *few, name="bad")
    skipped = go(tmp_path, *few, "data.skip_bad=true", name="skipped")
    assert "1 skipped" in json.loads((skipped.path / "results.json").read_text())["label"]


class OftenLate(Solver):
    """Answers every other cost only."""

    kinds = frozenset({"level"})

    def __init__(self):
        self.inner, self.asked = tian.load("solver", "genco/level-oracle"), 0

    def solve(self, inst, *, time_limit_s, seed=0, warm_start=None):
        self.asked += 1
        if self.asked % 2:
            return Solution(None, float("nan"), -np.inf, "timeout", time_limit_s)
        return self.inner.solve(inst, time_limit_s=time_limit_s)


@pytest.mark.parametrize("where", ["solver", "sampler"])
def test_a_solver_that_is_often_late_fails_the_run(tmp_path, where, monkeypatch):
    from tian.runs.rundir import Run

    load, late = Run.load, OftenLate()
    calls = {"solver": 0}

    def switched(self, role, node):
        calls["solver"] += 1
        return late if (calls["solver"] == 1) == (where == "solver") else load(self, role, node)

    monkeypatch.setattr(Run, "load", switched)
    with pytest.raises(RunError, match="ended without"):
        go(tmp_path, "train.batch=30", "train.through=5")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.plain=-1", "steps"),
        ("train.lr=0", "learning rates"),
        ("grad.name=spo-plus", "SPO\\+ compares"),
        ("grad.lam=0", "grad.lam"),
        ("sample.n=1", "sample.n"),
        ("data.width=5", "data.height and width"),
        ("solve.time_limit_s=0", "time_limit_s"),
        ("eval.k=0", "eval.k"),
        ("train.critic_steps=0", "critic_steps"),
    ],
)
def test_bad_options_are_refused(tmp_path, override, says):
    with pytest.raises(InvalidInput, match=says):
        go(tmp_path, override)


def test_replication_pairs_its_arms(tmp_path):
    arms = "compare=[plain,random,penalty,identity-fixed,plain-fixed]"
    result = tian.run(
        "genco/replication",
        [*TINY, arms, "repeats=2", "plain_again=2", "plain_long=3", "grad.samples=2"],
        folder=tmp_path / "r",
    )
    valid = {m.by["designs"]: m for m in result.measurements if m.name == "valid"}
    assert set(valid) == {"blackbox", "plain-long", "plain", "random", "penalty", "identity-fixed", "plain-fixed"}
    assert all(m.value == 1.0 and m.n == 2 for m in valid.values())
    rows = json.loads((tmp_path / "r" / "rows.json").read_text())
    ratio = next(m for m in result.measurements if m.by.get("method") == "blackbox" and m.name.startswith("energy"))
    by_hand = [rows[f"{r}/blackbox"]["energy distance"] / rows[f"{r}/plain-long"]["energy distance"] for r in (0, 1)]
    assert ratio.value == pytest.approx(np.mean(by_hand))
    assert "Arms" in (tmp_path / "r" / "report.html").read_text()
    with pytest.raises(InvalidInput, match="no arm"):
        tian.run("genco/replication", [*TINY, "method=magic"], folder=tmp_path / "x")


def test_the_same_seed_gives_the_same_levels_and_another_others():
    from tian_genco.options import LevelData

    data = LevelData(height=7, width=9, train=5, reference=5)
    a, b, c = (level_task(data, seed=s) for s in (0, 0, 1))
    assert np.array_equal(a.train, b.train)
    assert not np.array_equal(a.train, c.train)
    assert not np.array_equal(a.train, a.reference)


def test_rooms_are_learned_under_their_own_rules(tmp_path):
    rows = ["W" * 11] * 2 + ["WW" + "F" * 7 + "WW"] * 12 + ["W" * 11] * 2
    folder = tmp_path / "rooms"
    folder.mkdir()
    for i in range(3):
        one = [*rows]
        one[5] = "WW" + "F" * i + "BM" + "F" * (5 - i) + "WW"
        (folder / f"tloz{i}_1.txt").write_text("\n".join(one) + "\n")
    brief = ("data.preset=vglc-room", f"data.path={folder}", "eval.k=1", "train.reals=3", "train.batch=2", "sample.n=2")
    highs = ("solver=genco/highs", "sampler=genco/highs", "train.plain=2", "train.through=1")
    result = go(tmp_path, *brief, *highs)
    assert value(result, "valid") == 1.0
    with pytest.raises(InvalidInput, match="kind"):
        go(tmp_path, *brief, name="oracle")
    with pytest.raises(InvalidInput, match=r"data\.path"):
        go(tmp_path, "data.preset=vglc-room", name="nowhere")
