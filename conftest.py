"""Settings of hypothesis for the whole suite: no deadlines (a shared machine stalls), the same examples every time in CI."""

import os
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("tian", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("tian")


@pytest.fixture(autouse=True)
def _state_of_the_process() -> Iterator[None]:
    """What a test leaves switched off would break another one, far away: Ctrl-C is put back, gradients are told."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as Lightning leaves it after a Ctrl-C of its own
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    torch = sys.modules.get("torch")
    if torch is not None and not torch.is_grad_enabled():
        torch.set_grad_enabled(True)
        pytest.fail("the test left torch's gradients off")
