"""Reads in threads, ahead of what is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def read_ahead(read: Callable[[int], T], numbers: range, ahead: int, threads: int) -> Generator[T]:
    """Yields what is read for each of `numbers`, in order, while threads read up to `ahead` of them in advance.

    After the last one, or when the iterator is closed, no thread is left.
    """
    if ahead == 0:
        yield from map(read, numbers)
        return
    pool = ThreadPoolExecutor(min(ahead, threads), thread_name_prefix="read-ahead")
    coming = deque()
    try:
        for number in numbers:
            coming.append(pool.submit(read, number))
            if len(coming) > ahead:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
