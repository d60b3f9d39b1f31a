"""Work on a long log in parts, by processes or a thread that give way to everybody else.

Parts are worked on in no order, and what each comes to is taken as it comes. A log that is short is done by a thread of
this process before other processes would have begun. On Linux a thread has a priority of its own, which ends with it;
elsewhere this process keeps the low one. Alternative beaten: to lower that of this process, which switches rows
afterwards and would hold the store's lock at it.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

ALONE_EVENTS = 100_000
NICE = 19
AHEAD_MAX = 4
"""Parts that are worked on or wait to be."""

K = TypeVar("K")
T = TypeVar("T")


@contextmanager
def workers_for(events: int, workers: int, *, nice: int = NICE) -> Iterator[Executor]:
    """Who works on a log of so many events: *workers* processes, of a priority that is lower by *nice*."""
    if events < ALONE_EVENTS:
        executor: Executor = ThreadPoolExecutor(1, initializer=os.nice, initargs=(nice,))
    else:
        context = multiprocessing.get_context("spawn")  # a fork would copy the locks of other threads as they are held
        executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(nice,))
    with executor:
        yield executor


def spread(
    executor: Executor, work: Callable[..., T], parts: Iterable[tuple[K, tuple[object, ...]]]
) -> Iterator[tuple[K, T]]:
    """What *work* makes of each part's values, as it comes; few more are asked for than are worked on."""
    running: dict[Future[T], K] = {}
    for name, values in parts:
        running[executor.submit(work, *values)] = name
        if len(running) > AHEAD_MAX:
            yield from _done(running)
    while running:
        yield from _done(running)


def _done(running: dict[Future[T], K]) -> Iterable[tuple[K, T]]:
    ready, _ = wait(running, return_when=FIRST_COMPLETED)
    return [(running.pop(future), future.result()) for future in ready]


def _begin(nice: int) -> None:
    """Give way to everybody else, and end when the process ends that began this one, however it ends."""
    os.nice(nice)
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a child is told so"

    def ended() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=ended, daemon=True).start()
