"""Settings of hypothesis for the whole suite: no deadlines (a shared machine stalls), the same examples every time in CI."""

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("tian", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("tian")


@pytest.fixture(autouse=True)
def _gradients_stay_on() -> Iterator[None]:
    """A test that leaves gradients off breaks another one, far away."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None and not torch.is_grad_enabled():
        torch.set_grad_enabled(True)
        pytest.fail("the test left torch's gradients off")
