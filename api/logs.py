"""Log lines: JSON for machines or columns for people, one canonical line a request, and nothing secret in any.

Lines are gathered and written a few times a second: a write per request is a system call more than a cached GET needs.
A killed process may lose the last of them; what must not be lost is in the ledger, not here.
"""

import asyncio
import logging
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import TextIO, TypeAlias

import msgspec
import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from structlog.typing import EventDict, Processor, WrappedLogger

from ledger.times import rfc3339

FLUSH_SECONDS = 0.2
LINES_MAX = 128
NAMES_MAX = 512
"""Names of fields that are remembered as harmless."""

_SECRET_NAMES = re.compile(r"authorization|secret|signature|cookie|token|api_?key|password|pepper", re.IGNORECASE)
_SECRET_TEXT = re.compile(r"tl_[0-9A-Za-z]{12}_[0-9A-Za-z]{8,}|whsec_[^\s\"]+|[Bb]earer\s+[^\s\"]+")


class Format(StrEnum):
    JSON = "json"
    CONSOLE = "console"


class Answered(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The canonical line of a request: all of its fields, none of them secret."""

    request_id: str
    contract: str
    method: str
    route: str | None
    status: int
    refusal: str | None
    key_id: str | None
    account: str | None
    took_us: int
    event: str = "http.answered"
    level: str = "info"
    timestamp: str


Line: TypeAlias = Answered | str
"""A request's line, or any other, which structlog has rendered."""


class Lines:
    """Where lines go: gathered, and written every `FLUSH_SECONDS`, or when there are `LINES_MAX` of them."""

    def __init__(self, out: TextIO, render: Callable[[Sequence[Line]], str], *, requests: bool = True) -> None:
        self._out = out
        self._render = render
        self._takes_requests = requests
        self._lines: list[Line] = []
        self._timer: asyncio.TimerHandle | None = None

    def write(self, line: Line) -> None:
        """Take a line; it is written soon, or at once when no loop runs."""
        self._lines.append(line)
        if len(self._lines) >= LINES_MAX:
            self.flush()
        elif self._timer is None:
            try:
                self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
            except RuntimeError:
                self.flush()

    def answered(self, line: Answered) -> None:
        """Take a request's line. Not by way of structlog, whose lines took up to a third of a cached GET."""
        if self._takes_requests:
            self.write(line)

    debug = info = warning = error = critical = write

    def flush(self) -> None:
        """Write what has been gathered. What cannot be written is dropped: a full disk must not spoil an answer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        if lines:
            text = self._render(lines)
            if "tl_" in text or "whsec_" in text or "earer " in text:  # a search costs a tenth of the pattern
                text = _SECRET_TEXT.sub("[hidden]", text)
            with suppress(OSError):
                self._out.write(text)
                self._out.flush()


def configure(out: TextIO, log_format: Format, *, only_warnings: bool = False) -> Lines:
    """Send the log to *out*; the returned lines are to be flushed at the end. *only_warnings*: no requests."""
    console = structlog.dev.ConsoleRenderer(colors=out.isatty())
    renderer: Processor = _render if log_format is Format.JSON else console
    render = _json if log_format is Format.JSON else _columns(console)
    lines = Lines(out, render, requests=not only_warnings)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            stamp,
            structlog.processors.format_exc_info,
            hide,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger("warning" if only_warnings else "info"),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, _Libraries)]:
        root.removeHandler(handler)
    root.addHandler(_Libraries())
    return lines


def in_force() -> Lines:
    """Where the log goes: as configured, or to stdout."""
    made = structlog.get_config()["logger_factory"]()
    return made if isinstance(made, Lines) else Lines(sys.stdout, _json)


class _Libraries(logging.Handler):
    """What libraries log, in lines like ours: left to itself, Python writes it to stderr as it is."""

    def emit(self, record: logging.LogRecord) -> None:
        log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError | web.RequestPayloadError):
            # Not its message: that quotes what was sent, and a key cut in two does not look like one.
            log.info("http.unreadable", reason=type(error).__name__)
        else:
            said = record.getMessage()
            log.log(record.levelno, "library.logged", library=record.name, said=said, exc_info=record.exc_info)


def stamp(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """When, as RFC 3339 in UTC."""
    event["timestamp"] = rfc3339(time.time_ns() // 1000)
    return event


def hide(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Drop what is secret by its name; what is secret by its look is dropped from the finished line."""
    if not event.keys() <= _plain_names:
        for name in event.keys() - _plain_names:
            if _is_secret(name):
                event[name] = "[hidden]"
    return event


_plain_names: set[str] = set()


def _is_secret(name: str) -> bool:
    if _SECRET_NAMES.search(name):
        return True
    if len(_plain_names) < NAMES_MAX:
        _plain_names.add(name)
    return False


def _render(_: WrappedLogger, __: str, event: EventDict) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


_encoder = msgspec.json.Encoder()


def _json(lines: Sequence[Line]) -> str:
    return _encoder.encode_lines([msgspec.Raw(line) if isinstance(line, str) else line for line in lines]).decode()


def _columns(console: structlog.dev.ConsoleRenderer) -> Callable[[Sequence[Line]], str]:
    def render(lines: Sequence[Line]) -> str:
        said = (
            line if isinstance(line, str) else console(None, line.level, msgspec.structs.asdict(line)) for line in lines
        )
        return "".join(f"{text}\n" for text in said)

    return render
