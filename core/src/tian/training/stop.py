"""SIGTERM and Ctrl-C take effect between two steps, with a checkpoint; a second one acts at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from lightning.pytorch.callbacks import Callback

if TYPE_CHECKING:
    from tian.training.step_end import StepEnd

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class GracefulStop(Callback):
    """Last of the callbacks: when the step's checkpoint is written, raise what the signal means."""

    def __init__(self) -> None:
        self._got: int | None = None
        self._armed = False

    def requested(self) -> bool:
        """Whether a signal is waiting."""
        return self._got is not None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold signals back; outside the main thread, where handlers cannot be set, do nothing.

        Raises:
            KeyboardInterrupt: after SIGINT. Lightning makes `exit(1)` of it; that is turned back here.
            SystemExit: with code 143 after SIGTERM.
        """
        self._armed = threading.current_thread() is threading.main_thread()
        old = {number: signal.getsignal(number) for number in SIGNALS}
        self._install()
        try:
            yield
            self.check()  # it came after the last step
        except SystemExit as stop:
            if isinstance(stop.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
        finally:
            if self._armed:
                for number, handler in old.items():
                    signal.signal(number, handler if handler is not None else signal.SIG_DFL)
            self._armed = False

    def on_train_start(self, *_args: Any) -> None:
        """Take the signals again: Lightning has put handlers of its own in between."""
        self._install()

    def bind(self, end: StepEnd) -> GracefulStop:
        """Follow `end`, which knows whether any process was asked to stop."""
        self._end = end
        return self

    def on_train_batch_end(self, *_args: Any) -> None:
        """Stop here if asked."""
        if self._end.stops:
            _act(self._got or signal.SIGTERM)  # None: the signal went to another process

    def check(self) -> None:
        """Act on a signal that is waiting."""
        if self._got is not None:
            _act(self._got)

    def _install(self) -> None:
        if self._armed:
            for number in SIGNALS:
                signal.signal(number, self._note)

    def _note(self, number: int, _frame: object) -> None:
        if self._got is not None:
            _act(number)
        self._got = number


def _act(number: int) -> NoReturn:
    if number == signal.SIGTERM:
        raise SystemExit(143)
    raise KeyboardInterrupt
