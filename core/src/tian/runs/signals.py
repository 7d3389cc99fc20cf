"""Stop at a safe point: a signal that arrives inside a step takes effect after it."""

from __future__ import annotations

import signal
import threading
from typing import Any, Self


class SafePoint:
    """Context manager that holds SIGINT and SIGTERM back until `check()`; a second signal acts at once.

    Outside the main thread, where handlers cannot be set, it does nothing.
    """

    def __init__(self) -> None:
        self._got: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_exc: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old = {}

    def _note(self, number: int, _frame: object) -> None:
        if self._got is not None:
            self._raise(number)
        self._got = number

    @property
    def requested(self) -> bool:
        """Whether a signal is waiting."""
        return self._got is not None

    def check(self) -> None:
        """Raise what the signal means, if one came.

        Raises:
            KeyboardInterrupt: after SIGINT.
            SystemExit: with code 143 after SIGTERM.
        """
        if self._got is not None:
            self._raise(self._got)

    @staticmethod
    def _raise(number: int) -> None:
        if number == signal.SIGTERM:
            raise SystemExit(143)
        raise KeyboardInterrupt
