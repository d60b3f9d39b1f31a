"""Reading JSON that strangers send: into typed structs, or with a reason why not, in time linear in its size."""

import hashlib
import json
import re
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from api.refusals import Invalid

DEPTH_MAX = 32
T = TypeVar("T")

_encoder = msgspec.json.Encoder()
_canonical = msgspec.json.Encoder(order="deterministic")


def read_json(raw: bytes, kind: type[T]) -> T:
    """*raw* as a *kind*.

    Raises:
        Invalid: it is not JSON, not a *kind*, nested deeper than `DEPTH_MAX`, names a field twice, or holds a value
            that not every part of the system can carry: NUL characters, integers beyond 64 bits, numbers beyond a
            double's range.
    """
    try:
        value = msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        reason, param = _where(str(error))
        raise Invalid(reason, param=param) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise Invalid(f"the body is nested deeper than {DEPTH_MAX}") from None
    _look_through(raw)
    try:
        if b"\\" in raw:
            json.loads(raw, object_pairs_hook=_once_each)
        elif _lost_names(raw):
            raise _twice()
    except (ValueError, OverflowError, RecursionError):  # in a part that *kind* passes over
        raise Invalid("the body holds a value that cannot be carried") from None
    return value


def read_json_or(raw: bytes, default: T) -> T:
    """*raw* as JSON of the type of *default*, which is what no body or an empty one stands for.

    Raises:
        Invalid: as `read_json`.
    """
    return read_json(raw, type(default)) if raw.strip() else default


_INT_MAX_DIGITS = b"%d" % (2**63 - 1)
_INTEGER = re.compile(rb"(?<![0-9.eE+])(?<![eE]-)[0-9]{19,}(?![0-9.eE])")
_NO_DIGITS = bytes(set(range(256)) - set(b"0123456789"))
_NO_MARKS = bytes(set(range(256)) - set(b'"[]{}'))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")


def _look_through(raw: bytes) -> None:
    """Refuse JSON with a value that cannot be carried, in the parts that are passed over too.

    Alternative beaten: to walk through what was read, half a second for 1 MiB of `[],[],`, and nobody is served then.
    """
    if b"\\" in raw:
        raw = raw.replace(rb"\\", b"")
        if rb"\u0000" in raw:
            raise Invalid("a text has a NUL character")
        raw = raw.replace(rb"\"", b"")
    if raw.count(b"{") + raw.count(b"[") > DEPTH_MAX and _is_deep(raw):
        raise Invalid(f"the body is nested deeper than {DEPTH_MAX}")
    if len(raw.translate(None, _NO_DIGITS)) >= len(_INT_MAX_DIGITS) and _INTEGER.search(raw):
        for digits in _INTEGER.findall(_outside_texts(raw)):
            if (len(digits), digits) > (len(_INT_MAX_DIGITS), _INT_MAX_DIGITS):
                raise Invalid("an integer does not fit 64 bits")


def _is_deep(raw: bytes) -> bool:
    """Whether JSON without escapes is nested deeper than `DEPTH_MAX`: each round takes the innermost brackets away."""
    marks = raw.translate(_ONE_KIND, _NO_MARKS).replace(b'""', b"")
    marks = _outside_texts(marks) if b'"' in marks else marks
    for _ in range(DEPTH_MAX):
        if not marks:
            return False
        marks = marks.replace(b"[]", b"")
    return bool(marks)


def _outside_texts(raw: bytes) -> bytes:
    """What of JSON without escapes is no text. To take pairs of marks away before changes nothing."""
    return b"".join(raw.split(b'"')[::2])


def _lost_names(raw: bytes) -> bool:
    """Whether reading it loses a name, as it does when an object has it twice. Two marks stand around each text.

    Only for what has no escapes; and to read it again and write it costs half of a look at each name.
    """
    return raw.count(b'"') != _encoder.encode(msgspec.json.decode(raw)).count(b'"')


def _twice() -> Invalid:
    """One reader takes the first, the next one the last."""
    return Invalid("an object names a field twice")


def _once_each(members: list[tuple[str, Any]]) -> None:
    if len(dict(members)) != len(members):
        raise _twice()


def _where(message: str) -> tuple[str, str | None]:
    """A message such as ``Expected `int`, got `str` - at `$.a.b``` as a reason and a dotted path.

    A field that is missing is at fault itself, and not the object around it.
    """
    reason, _, path = message.partition(" - at `$")
    steps = [path.rstrip("`").lstrip("."), *_MISSING.findall(reason)]
    return reason, ".".join(filter(None, steps)) or None


_MISSING = re.compile("missing required field `(.*)`")


def url_in(text: str | None, field: str) -> str | None:
    """An absolute http or https address without credentials.

    Raises:
        Invalid: it is none.
    """
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:
        fine = False
    if not fine or not text.isascii() or not text.isprintable() or " " in text:
        raise Invalid(f"{field} must be an http or https address", param=field)
    return text


def fingerprint(*parts: object) -> str:
    """A digest that two requests share exactly when they ask the same: key order and white space do not count."""
    return hashlib.sha256(_canonical.encode(parts)).hexdigest()
