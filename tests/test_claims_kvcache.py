"""The claims that ship: every promise has one answer, and no bar or world changes without a decision."""

import json
from pathlib import Path

from tian.claims.engine import claims_of
from tian.claims.fingerprint import world_hash
from tian.claims.plan import differing_groups
from tian.claims.promises import promises, unanswered
from tian.claims.store import definition

ROOT = Path(__file__).parents[1]
LOCKS = {"kvcache": ROOT / "plugins" / "kvcache" / "claims.lock.json"}
BUDGETS = {"kvcache": 6}  # minutes on two cores, scale tiny


def test_every_promise_of_the_papers_is_claimed_or_not_testable_or_open():
    assert unanswered(promises(), [c for c, _ in claims_of()]) == {}


def test_every_control_differs_in_one_config_group():
    for claim, _ in claims_of():
        for check in claim.checks.values():
            assert len(differing_groups(check)) == 1, claim.id


def test_the_tiny_checks_fit_into_the_plugins_budget():
    for plugin, minutes in BUDGETS.items():
        checks = [c.checks["tiny"] for c, _ in claims_of(plugin) if "tiny" in c.checks]
        assert sum(c.budget_s for c in checks) <= 2 * 60 * minutes  # two cores


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
        assert "not yet an emergent attention sink" in claim.checks["tiny"].stands_in
