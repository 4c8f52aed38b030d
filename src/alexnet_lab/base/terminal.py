"""Keeps a run alive when standard output, standard error or the terminal goes away.

The reader of a pipe may have left (`| head`), the disk under `2> file` may be full, or the terminal's window may be
closed. The output is then lost and the run continues: its log is in `train.log`, its result in `result.json`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors that may pass, because space can be freed. After any other error nobody will read the output again."""


class _Descriptor(io.FileIO):
    """A file descriptor to which writing always succeeds; data that cannot be written is dropped."""

    def write(self, data: ReadableBuffer, /) -> int:
        view = memoryview(data).cast("B")
        left = view
        while left:
            try:
                left = left[os.write(self.fileno(), left) :]
            except BlockingIOError:  # a pipe that another process has set to non-blocking
                select.select([], [self.fileno()], [])
            except OSError as error:
                if error.errno not in FULL:
                    _open_null(self.fileno())
                break
        return len(view)


class Output(io.TextIOWrapper):
    """A standard stream that cannot fail; characters that its encoding lacks are escaped."""


def require_posix() -> None:
    """Exits with one line on Windows, whose signals, locks and processes differ; WSL2 is Linux."""
    if sys.platform == "win32":
        sys.exit("error: AlexNet Lab runs on Linux and macOS, not on Windows; install WSL2: wsl --install")


def outlive_terminal() -> None:
    """Makes this process survive the loss of its terminal, of a pipe's reader, and of disk space for its output.

    Each process of a run calls it once, before heavy imports; a second call changes nothing. Replaced streams (by a
    test or a notebook) stay unchanged.

    SIGHUP is ignored if the terminal has gone. If the terminal still exists, or there never was one, somebody has sent
    the signal, and it counts as SIGTERM. If SIGHUP was ignored from the start (`nohup`), it still is.
    """
    for number in (0, 1, 2):
        if not _is_open(number):  # closed by `>&-`: the next opened file would take its number, and its output
            _open_null(number)
    _protect("stdout", 1)
    _protect("stderr", 2)
    on_main_thread = threading.current_thread() is threading.main_thread()
    if on_main_thread and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _hang_up_handler(had_terminal=_has_terminal()))


def _protect(name: str, number: int) -> None:
    """Replaces the interpreter's own stream by one that cannot fail."""
    stream: io.TextIOWrapper | None = getattr(sys, name)
    if isinstance(stream, Output) or stream is not getattr(sys, f"__{name}__"):
        return
    raw, unbuffered = _Descriptor(number, "w", closefd=False), stream is not None and stream.write_through
    output = Output(
        raw if unbuffered else io.BufferedWriter(raw),  # pyright: ignore[reportArgumentType] - as Python itself does it
        encoding="utf-8" if stream is None else stream.encoding,
        errors="backslashreplace",
        line_buffering=name == "stderr" or raw.isatty(),
        write_through=unbuffered,
    )
    with contextlib.suppress(OSError):
        if stream is not None:
            stream.flush()
    setattr(sys, name, output)
    setattr(sys, f"__{name}__", output)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _open_null(number: int) -> None:
    """Connects a file descriptor to /dev/null, for C libraries and child processes too."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
    os.set_inheritable(number, True)


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _hang_up_handler(*, had_terminal: bool) -> Callable[[int, FrameType | None], None]:
    def hang_up(number: int, frame: FrameType | None) -> None:
        if had_terminal and not _has_terminal():
            return
        signal.raise_signal(signal.SIGTERM)

    return hang_up
