"""Whose callback is next: lines of callbacks, and how many of each may be under way. Pure.

A line is what waits for one receiver of one account. A line begins with one try at a time; each that is answered
doubles that, up to a bound, and one that is not answered makes it one again. So a receiver that hangs holds one place
and not all of its line's, and those of other accounts and receivers do not notice. An account has a bound over its
lines, and all together have one.
"""

import heapq
from typing import NamedTuple

from projections.callbacks.rows import Line


class Bounds(NamedTuple):
    """How many tries may be under way at once."""

    in_all_max: int
    account_max: int
    receiver_max: int


class _State:
    """One line."""

    __slots__ = ("busy", "from_us", "width")

    def __init__(self) -> None:
        self.busy = 0
        self.width = 1
        self.from_us: int | None = None
        """From when on there may be something to do; None: nothing is known of."""


class Lines:
    """All lines in which something waits or is under way."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._lines: dict[Line, _State] = {}
        self._heap: list[tuple[int, Line]] = []
        """Lines by when they are to be looked at; an entry that no longer fits its line is passed over."""
        self._accounts: dict[str, int] = {}
        self._parked: dict[str, set[Line]] = {}
        """Lines that wait for a place of their account's."""
        self.busy = 0

    def look(self, line: Line, from_us: int) -> None:
        """Something may be to be done in *line* from *from_us* on."""
        state = self._lines.setdefault(line, _State())
        if state.from_us is None or from_us < state.from_us:
            state.from_us = from_us
            heapq.heappush(self._heap, (from_us, line))

    def rest(self, line: Line) -> None:
        """Nothing is to be done in *line*, as far as anybody knows: it is forgotten once nothing is under way."""
        state = self._lines.get(line)
        if state is not None and state.busy == 0 and state.from_us is None:
            del self._lines[line]

    def next_us(self) -> int | None:
        """When the next line is to be looked at; None: nobody knows of any."""
        while self._heap:
            from_us, line = self._heap[0]
            if self._fits(from_us, line):
                return from_us
            heapq.heappop(self._heap)
        return None

    def take(self, now_us: int) -> tuple[Line, int] | None:
        """A line that is to be looked at, and for how many more it has room; None: there is none now.

        It is not given again until `look` says that there may be more.
        """
        while self.busy < self._bounds.in_all_max:
            from_us = self.next_us()
            if from_us is None or from_us > now_us:
                return None
            _, line = heapq.heappop(self._heap)
            state = self._lines[line]
            room = self._room(line, state)
            if room > 0:
                state.from_us = None
                return line, room
            if state.busy < state.width:
                self._parked.setdefault(line.account, set()).add(line)
        return None

    def begin(self, line: Line) -> None:
        """One more of the line is under way."""
        self._lines.setdefault(line, _State()).busy += 1
        self._accounts[line.account] = self._accounts.get(line.account, 0) + 1
        self.busy += 1

    def end(self, line: Line, *, answered: bool) -> None:
        """One of the line is over: there is room for another of it, or of those that wait for its account's."""
        state = self._lines[line]
        state.busy -= 1
        state.width = min(state.width * 2, self._bounds.receiver_max) if answered else 1
        self.busy -= 1
        left = self._accounts[line.account] - 1
        if left:
            self._accounts[line.account] = left
        else:
            del self._accounts[line.account]
        for one in (line, *self._parked.pop(line.account, ())):
            self._again(one)

    def _again(self, line: Line) -> None:
        """The line may have room now for what is known to wait in it."""
        state = self._lines.get(line)
        if state is not None and state.from_us is not None:
            heapq.heappush(self._heap, (state.from_us, line))

    def _room(self, line: Line, state: _State) -> int:
        bounds = self._bounds
        account = bounds.account_max - self._accounts.get(line.account, 0)
        return min(state.width - state.busy, account, bounds.in_all_max - self.busy)

    def _fits(self, from_us: int, line: Line) -> bool:
        state = self._lines.get(line)
        return state is not None and state.from_us == from_us
