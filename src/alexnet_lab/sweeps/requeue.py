"""SLURM's notice of the time limit: the job writes a checkpoint, goes back into the queue, and goes on from there.

submitit asks SLURM for SIGUSR2 some time before the limit (`hydra.launcher.signal_delay_s`), and sets a handler that
puts the job back at once, in the middle of a step. Here the run ends first.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from alexnet_lab.base.cluster import is_first


@contextlib.contextmanager
def requeued_on_notice() -> Iterator[None]:
    """Within the block SIGUSR2 ends the run as SIGTERM does; after it the handler that was there before is called.

    Without such a handler, or in another thread than the main one, nothing changes. Of a job on several nodes the
    first process acts, and the others end with it.
    """
    requeue = signal.getsignal(signal.SIGUSR2)
    if not callable(requeue) or threading.current_thread() is not threading.main_thread():
        yield
        return
    noticed = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal noticed
        if is_first() and not noticed:
            noticed = True
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGUSR2, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, requeue)
        if noticed:
            requeue(signal.SIGUSR2, None)
