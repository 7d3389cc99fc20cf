"""The demo meets the bar of the claim, whatever the seed, and the control misses it."""

import pytest

import tian
from @@package@@.claims import CLAIMS

CHECK = CLAIMS[0].checks["tiny"]


def measured(folder, *overrides):
    result = tian.run(CHECK.config, [*CHECK.overrides, *overrides], folder=folder / "run")
    assert (folder / "run" / "report.html").exists()
    (found,) = [m.value for m in result.measurements if m.name == CHECK.metric]
    return found


@pytest.mark.parametrize("seed", [0, 1])
def test_the_demo_meets_the_bar(tmp_path, seed):
    assert CHECK.holds.low <= measured(tmp_path, f"seed={seed}") <= CHECK.holds.high


@pytest.mark.parametrize("seed", [0, 1])
def test_the_control_misses_the_bar(tmp_path, seed):
    assert not CHECK.holds.low <= measured(tmp_path, f"seed={seed}", *CHECK.control) <= CHECK.holds.high
