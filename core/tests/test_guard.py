"""What the guard lets through."""

import sys

import pytest

from tian.plugins.guard import Terminated, guard


def test_a_termination_is_not_taken_for_a_plugins_exit():
    def stop():
        raise Terminated(143)

    with pytest.raises(Terminated):
        guard(stop)
    assert guard(lambda: sys.exit(3)).error.code == 3
