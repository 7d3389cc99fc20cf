"""The claims that ship: every promise has one answer, and no bar or world changes without a decision."""

import json
from pathlib import Path

from tian.claims.engine import claims_of
from tian.claims.fingerprint import world_hash
from tian.claims.plan import ARMS, differing_groups, plan
from tian.claims.promises import promises, unanswered
from tian.claims.store import definition

ROOT = Path(__file__).parents[1]
LOCKS = {name: ROOT / "plugins" / name / "claims.lock.json" for name in ("genco", "kvcache")}
BUDGETS = {"genco": 10, "kvcache": 6}  # minutes on two cores, scale tiny


def test_every_promise_of_the_papers_is_claimed_or_not_testable_or_open():
    assert unanswered(promises(), [c for c, _ in claims_of()]) == {}


def test_every_control_differs_in_one_config_group():
    for claim, _ in claims_of():
        for check in claim.checks.values():
            assert len(differing_groups(check)) == 1, claim.id


def test_the_tiny_checks_fit_into_the_plugins_budget():
    """A run that several checks share is paid once: by the one that allows most for it."""
    for plugin, minutes in BUDGETS.items():
        allowed = {}
        for claim, module in claims_of(plugin):
            if "tiny" in claim.checks:
                made = plan(claim, "tiny", module=module, root=Path())
                for task in made.tasks:
                    share = made.check.budget_s / len(made.tasks)
                    allowed[task.path] = max(share, allowed.get(task.path, 0.0))
        assert sum(allowed.values()) <= 2 * 60 * minutes  # two cores


def test_claims_share_runs():
    """Who adds a claim looks whether its runs are there already: as the main arm or the control of another."""
    plans = [plan(c, "tiny", module=m, root=Path()) for c, m in claims_of("kvcache") if "tiny" in c.checks]
    runs = {p.claim.id: {t.path for t in p.tasks} for p in plans}
    arms = {p.claim.id: {arm: {t.path for t in p.tasks if t.arm == arm} for arm in ARMS} for p in plans}
    assert arms["kvcache/dense-fails-past-training-length"]["control"] == arms["kvcache/first-tokens-recover"]["claim"]
    assert runs["kvcache/bounded-memory"] <= runs["kvcache/dense-fails-past-training-length"]
    assert runs["kvcache/first-token-collects-attention"] == runs["kvcache/window-fails-at-first-eviction"]
    assert runs["kvcache/heavy-hitters-co-occur"] == runs["kvcache/masking-heavy-hitters-hurts"]
    assert arms["kvcache/fading-scores-follow-drift"]["control"] == arms["kvcache/h2o-recalls"]["claim"]
    assert runs["kvcache/constructed-window-fails"] == runs["kvcache/constructed-one-sink-recovers"]


def lock_of(plugin, decision):
    """What is frozen of a plugin's claims: what each check asks, and the content of the worlds by version."""
    checks, worlds = {}, {}
    for claim, _ in claims_of(plugin):
        checks[claim.id] = {
            "expected": claim.expected,
            "checks": {scale: definition(check) for scale, check in claim.checks.items()},
        }
        for check in claim.checks.values():
            worlds.update({f"{w.name} {w.version}": world_hash(w) for w in check.worlds})
    return {"decision": decision, "claims": checks, "worlds": worlds}


def test_a_bar_or_a_world_changes_only_with_a_decision():
    """To change one: write the decision, name it in the lock, and put the text below in its place."""
    for plugin, file in LOCKS.items():
        lock = json.loads(file.read_text(encoding="utf-8"))
        decision = ROOT / "docs" / "adr" / lock["decision"]
        assert decision.is_file()
        assert plugin in decision.read_text(encoding="utf-8")
        now = lock_of(plugin, lock["decision"])
        assert now == lock, (
            f"{file}: the claims are no longer the ones that were decided on:\n{json.dumps(now, indent=2)}"
        )


def test_every_check_says_what_stands_in_for_the_papers_model():
    for claim, _ in claims_of("kvcache"):
        check = claim.checks["tiny"] if "tiny" in claim.checks else next(iter(claim.checks.values()))
        assert check.stands_in, claim.id
        if "shipped-lm" in {w.name for w in check.worlds}:
            assert "not yet an emergent attention sink" in check.stands_in, claim.id


def test_what_is_constructed_says_so():
    for claim, _ in claims_of("kvcache"):
        for check in claim.checks.values():
            if check.config == "kvcache/recall":
                assert claim.says.startswith("constructed: ")
                assert "constructed" in check.stands_in
