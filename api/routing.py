"""Which route a path is: a table per contract, looked up by the path's shape.

At the bare root two contracts share paths, and the key decides between them. So each contract brings its table, the
shell picks the table, and this finds the row. Alternative beaten: aiohttp's router, which would have to know whose
request it is before it is asked.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
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
    """Rows that share a path with placeholders, each of which stands for one segment that is not empty."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.methods: dict[str, R] = {}
        parts = re.split(r"\{(\w+)\}", path)
        self._names = parts[1::2]
        self._match = re.compile("([^/]+)".join(map(re.escape, parts[::2]))).fullmatch

    def params(self, raw_path: str) -> Params | None:
        """What the placeholders stand for in *raw_path*, or None when it is another path."""
        found = self._match(raw_path)
        if found is None:
            return None
        texts = map(unquote, found.groups()) if "%" in raw_path else found.groups()
        return dict(zip(self._names, texts, strict=True))


class Table(Generic[R]):
    """Routes by path. A literal path beats a pattern; among patterns, the earlier one wins."""

    def __init__(self, routes: Sequence[R]) -> None:
        self._literal: dict[str, dict[str, R]] = {}
        self._patterns: list[_Pattern[R]] = []
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

    def _fitting(self, raw_path: str) -> Iterator[tuple[dict[str, R], Params]]:
        literal = self._literal.get(raw_path)
        if literal is not None:
            yield literal, NO_PARAMS
        for pattern in self._patterns:
            params = pattern.params(raw_path)
            if params is not None:
                yield pattern.methods, params

    def _methods(self, path: str) -> dict[str, R]:
        if "{" not in path:
            return self._literal.setdefault(path, {})
        for pattern in self._patterns:
            if pattern.path == path:
                return pattern.methods
        self._patterns.append(_Pattern(path))
        return self._patterns[-1].methods
