"""Reading a form that strangers send (multipart/form-data, RFC 7578): into its parts, or with a reason why not.

The parts are cut apart at their delimiter, which is all that RFC 2046 (5.1.1) has between them, and the standard
library reads the few header lines of each: bounded both, and in time linear in the body. Alternatives beaten: its mail
parser on the whole body goes line by line, into what is nested too, and nobody else is answered meanwhile: 0.4 s for a
MiB of newlines, 14 s for one of empty parts. aiohttp's reader awaits its bytes from a stream, and contracts are pure.
"""

from collections.abc import Mapping, Sequence
from email.message import Message
from email.parser import HeaderParser
from typing import NamedTuple, TypeAlias

from api.refusals import Invalid

MEDIA_TYPE = "multipart/form-data"
PARTS_MAX = 32
HEAD_MAX_BYTES = 1024
"""Of all header lines of a part together."""
BOUNDARY_MAX_CHARS = 70
"""RFC 2046, 5.1.1."""
IDENTITY = {"7bit", "8bit", "binary"}
"""What ``Content-Transfer-Encoding`` may say; parts are not encoded over HTTP (RFC 7578, 4.7)."""


class Part(NamedTuple):
    """A field of a form; a file has a *filename*, and says its type, in lower case and without parameters, or None."""

    content: bytes
    filename: str | None = None
    media_type: str | None = None


Form: TypeAlias = Mapping[str, Part]
"""Parts by the names of their fields."""


def read_form(headers: Mapping[str, str], raw: bytes) -> Form | None:
    """*raw* as a form; None when the headers say that it is something else.

    Raises:
        Invalid: it is none: no boundary, cut off, more than `PARTS_MAX` parts, a part without a name, with one that
            another part has, with a head of more than `HEAD_MAX_BYTES`, nested or encoded.
    """
    declared = headers.get("Content-Type", "")
    if declared.partition(";")[0].strip().lower() != MEDIA_TYPE:
        return None
    form: dict[str, Part] = {}
    for piece in _pieces(_boundary(declared), raw):
        name, part = _part(piece)
        if name in form:
            raise Invalid("the form names a field twice")
        form[name] = part
    return form


def _boundary(declared: str) -> bytes:
    if len(declared) > HEAD_MAX_BYTES:
        raise Invalid(f"the Content-Type is longer than {HEAD_MAX_BYTES} characters", param="Content-Type")
    message = Message()
    message["Content-Type"] = declared
    boundary = _params(message, "Content-Type").get("boundary", "")
    if not (boundary.isascii() and boundary.isprintable() and 1 <= len(boundary) <= BOUNDARY_MAX_CHARS):
        raise Invalid(f"the form has no boundary of 1 to {BOUNDARY_MAX_CHARS} characters", param="Content-Type")
    return boundary.encode()


def _pieces(boundary: bytes, raw: bytes) -> list[bytes]:
    """What stands between the delimiters; what stands before the first and after the last is passed over."""
    _, *pieces = (b"\r\n" + raw).split(b"\r\n--" + boundary, PARTS_MAX + 2)
    if len(pieces) > PARTS_MAX + 1:
        raise Invalid(f"the form has more than {PARTS_MAX} parts")
    if not pieces or not pieces[-1].startswith(b"--"):
        raise Invalid("the form is cut off")
    return pieces[:-1]


def _part(piece: bytes) -> tuple[str, Part]:
    """The name of a part, and the part."""
    padding, _, rest = piece.partition(b"\r\n")
    head, blank, content = rest.partition(b"\r\n\r\n")
    if padding.strip(b" \t") or not blank:
        raise Invalid("a part of the form has no head")
    message = _head(head)
    disposition = _params(message, "Content-Disposition")
    name, filename = disposition.get("name", ""), disposition.get("filename")
    if "form-data" not in disposition or not name:
        raise Invalid("a part of the form has no name")
    if "\0" in name or "\0" in (filename or ""):
        raise Invalid("a text has a NUL character")
    return name, Part(content, filename, message.get_content_type() if "Content-Type" in message else None)


def _head(head: bytes) -> Message:
    if len(head) > HEAD_MAX_BYTES:
        raise Invalid(f"the head of a part is longer than {HEAD_MAX_BYTES} bytes")
    try:
        message = HeaderParser().parsestr(head.decode())
    except UnicodeDecodeError:
        raise Invalid("the head of a part is not UTF-8") from None
    if message.defects or message.get_payload() or len(message.get_all("Content-Disposition", [])) != 1:
        raise Invalid("the head of a part is malformed")
    if message.get_content_maintype() == "multipart":
        raise Invalid("a part of the form is a form")
    if message.get("Content-Transfer-Encoding", "binary").strip().lower() not in IDENTITY:
        raise Invalid("a part of the form is encoded")
    return message


def _params(message: Message, field: str) -> dict[str, str]:
    """The parameters of a header field, and its value as the name of one without a value.

    Raises:
        Invalid: one is given twice, or in a charset of its own (RFC 2231), which forms do not have (RFC 7578, 4.2).
    """
    pairs: Sequence[tuple[str, object]] = message.get_params(failobj=[], header=field)
    params = {name.lower(): value for name, value in pairs if isinstance(value, str)}
    if len(params) != len(pairs):
        raise Invalid(f"{field} has a parameter that cannot be read")
    return params
