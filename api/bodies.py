"""Reading JSON that strangers send: into typed structs, or with a reason why not, in time linear in its size."""

import hashlib
import json
import math
import re
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from api.refusals import Invalid

DEPTH_MAX = 32
_INT_MAX = 2**63 - 1
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
    if _suspect(raw):
        check(value)
    try:
        if b"\\" in raw:
            json.loads(raw, object_pairs_hook=_once_each)
        elif _lost_names(raw):
            raise _twice()
    except (ValueError, OverflowError, RecursionError):  # in a part that *kind* passes over
        raise Invalid("the body holds a value that cannot be carried") from None
    return value


_DIGITS_MAX = 18
_NO_DIGITS = bytes(set(range(256)) - set(b"0123456789"))
_LONG_NUMBER = re.compile(rb"[0-9]{19}")


def _suspect(raw: bytes) -> bool:
    """Whether the bytes could hold what `check` refuses: a look at them costs a tenth of a walk through the value."""
    return (
        raw.count(b"{") + raw.count(b"[") > DEPTH_MAX
        or b"\\u0000" in raw
        or (len(raw.translate(None, _NO_DIGITS)) > _DIGITS_MAX and bool(_LONG_NUMBER.search(raw)))
    )


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


def check(value: object, *, depth: int = 0) -> None:
    """Refuse what cannot be carried, anywhere inside *value*."""
    if depth > DEPTH_MAX:
        raise Invalid(f"the body is nested deeper than {DEPTH_MAX}")
    match value:
        case str():
            if "\x00" in value:
                raise Invalid("a text has a NUL character")
        case bool() | None:
            return
        case int():
            if not -_INT_MAX <= value <= _INT_MAX:
                raise Invalid("an integer does not fit 64 bits")
        case float():
            if not math.isfinite(value):
                raise Invalid("a number is out of range")
        case dict():
            for key, item in value.items():
                check(key, depth=depth + 1)
                check(item, depth=depth + 1)
        case list() | tuple():
            for item in value:
                check(item, depth=depth + 1)
        case msgspec.Struct():
            for name in value.__struct_fields__:
                check(getattr(value, name), depth=depth + 1)
        case _:
            raise AssertionError(type(value))


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
