"""Workers on a log in parts: a thread of this process, and other processes beside it, which give way to everybody else.

Parts are worked on in no order, and what each comes to is taken as it comes. A process takes a fifth of a second to
begin, in which a thread has done a short log and a good part of a longer one: so a thread always works, and processes
do when the log is long. On Linux a thread has a priority of its own, which ends with it; elsewhere this process keeps
the low one. Alternatives beaten: to lower that of this process, which switches rows afterwards and would hold the
store's lock at it; a process for each core while this one waits, one more to begin. With that and larger pages, a
replay of 210,000 events asked the processors for 8.0 us an event and now for 6.0, `verify` of 118,000 for 22.6 and now
for 19.8, all that begins included. With a process from 50,000 events on, `verify` was no sooner on a busy machine.
"""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from typing import TypeAlias, TypeVar

ALONE_EVENTS = 100_000
"""A log of fewer is done before another process would have begun."""
NICE = 19
WORKERS_MAX = 2
"""More were not measured: the reading of one file is what they share."""
AHEAD_MAX = 2
"""Parts that one worker works on or that wait for it."""

Crew: TypeAlias = Sequence[Executor]
"""Workers, each of whom does one thing at a time."""

K = TypeVar("K")
T = TypeVar("T")


def workers_here() -> int:
    """How many this machine has processors for."""
    return min(WORKERS_MAX, os.cpu_count() or 1)


@contextmanager
def workers_for(events: int, workers: int, *, nice: int = NICE) -> Iterator[Crew]:
    """Who works on a log of so many events: *workers* at most, of a priority that is lower by *nice*."""
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of other threads as they are held
    processes = 0 if events < ALONE_EVENTS else workers - 1
    with ExitStack() as stack:
        crew: list[Executor] = [ThreadPoolExecutor(1, initializer=os.nice, initargs=(nice,))]
        crew += (
            ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=(nice,)) for _ in range(processes)
        )
        yield [stack.enter_context(worker) for worker in crew]


def spread(crew: Crew, work: Callable[..., T], parts: Iterable[tuple[K, tuple[object, ...]]]) -> Iterator[tuple[K, T]]:
    """What *work* makes of each part's values, as it comes; few more are asked for than are worked on."""
    running: dict[Future[T], tuple[K, Executor]] = {}
    free = deque([*crew] * AHEAD_MAX)
    for name, values in parts:
        worker = free.popleft()
        running[worker.submit(work, *values)] = name, worker
        if not free:
            yield from _done(running, free)
    while running:
        yield from _done(running, free)


def _done(running: dict[Future[T], tuple[K, Executor]], free: deque[Executor]) -> Iterable[tuple[K, T]]:
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        name, worker = running.pop(future)
        free.append(worker)
        yield name, future.result()


def _begin(nice: int) -> None:
    """Give way to everybody else, and end when the process ends that began this one, however it ends."""
    os.nice(nice)
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a child is told so"

    def ended() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=ended, daemon=True).start()
