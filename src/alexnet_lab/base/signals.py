"""Signals within a block: other handlers, an interrupt by SIGTERM, a delay."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class Terminated(KeyboardInterrupt):
    """SIGTERM, treated like Ctrl-C: as a `KeyboardInterrupt` it is not mistaken for an error."""


@contextlib.contextmanager
def handled(handlers: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    """Within the block signals have these handlers; afterwards the former ones are restored.

    Outside the main thread, which alone may set handlers, nothing changes.
    """
    on_main_thread = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number, handler in handlers.items() if on_main_thread}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def terminate(number: int, frame: FrameType | None) -> None:
    """A handler that raises `Terminated`, whatever the signal."""
    raise Terminated("interrupted by SIGTERM")


def terminable() -> AbstractContextManager[None]:
    """Within the block SIGTERM raises `Terminated`."""
    return handled({signal.SIGTERM: terminate})


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Delays Ctrl-C, SIGTERM and SIGHUP until the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
