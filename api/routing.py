"""Which route a path is: a table per contract, looked up by the path's shape.

aiohttp's own router would have to know whose request it is before it is asked: at the bare root two contracts share
paths, and the key decides between them. So each contract brings its table, one catch-all handler picks the table,
and this finds the row. Twenty dynamic routes under one prefix would also cost aiohttp's router a third.
"""

from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar
from urllib.parse import unquote

from api.refusals import MethodNotAllowed, UnknownRoute


class HasPath(Protocol):
    """A row of a table: ``path`` has ``{name}`` for a segment of any text."""

    @property
    def method(self) -> str: ...

    @property
    def path(self) -> str: ...


R = TypeVar("R", bound=HasPath)
Params = Mapping[str, str]
NO_PARAMS: Params = {}


class _Pattern(Generic[R]):
    """Rows that share a path with placeholders."""

    def __init__(self, path: str) -> None:
        self.segments = path.split("/")
        self.methods: dict[str, R] = {}

    def params(self, segments: Sequence[str]) -> Params | None:
        """What the placeholders stand for in *segments*, or None when the literal ones differ or one is empty."""
        found = {}
        for mine, theirs in zip(self.segments, segments, strict=True):
            if mine.startswith("{"):
                if not theirs:
                    return None
                found[mine[1:-1]] = unquote(theirs) if "%" in theirs else theirs
            elif mine != theirs:
                return None
        return found


class Table(Generic[R]):
    """Routes by path. A literal path beats a pattern; among patterns, the earlier one wins."""

    def __init__(self, routes: Sequence[R]) -> None:
        self._literal: dict[str, dict[str, R]] = {}
        self._patterns: dict[int, list[_Pattern[R]]] = {}
        for route in routes:
            assert route.method not in self._methods(route.path), f"{route.method} {route.path} stands twice"
            self._methods(route.path)[route.method] = route

    def match(self, method: str, raw_path: str) -> tuple[R, Params]:
        """The route for *method* on *raw_path*, which is still percent-encoded, and what its placeholders stand for.

        Raises:
            UnknownRoute: no row has this path.
            MethodNotAllowed: rows have it, but for other methods.
        """
        allowed: list[str] = []
        for methods, params in self._fitting(raw_path):
            if method in methods:
                return methods[method], params
            allowed += methods
        if allowed:
            raise MethodNotAllowed(tuple(sorted(set(allowed))))
        raise UnknownRoute

    def _fitting(self, raw_path: str) -> "list[tuple[dict[str, R], Params]]":
        segments = raw_path.split("/")
        fitting: list[tuple[dict[str, R], Params]] = []
        if raw_path in self._literal:
            fitting.append((self._literal[raw_path], NO_PARAMS))
        for pattern in self._patterns.get(len(segments), ()):
            params = pattern.params(segments)
            if params is not None:
                fitting.append((pattern.methods, params))
        return fitting

    def _methods(self, path: str) -> dict[str, R]:
        if "{" not in path:
            return self._literal.setdefault(path, {})
        patterns = self._patterns.setdefault(path.count("/") + 1, [])
        for pattern in patterns:
            if pattern.segments == path.split("/"):
                return pattern.methods
        patterns.append(_Pattern(path))
        return patterns[-1].methods
