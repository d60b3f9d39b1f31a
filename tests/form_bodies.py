"""Forms as bytes, good ones and all that is none."""

from typing import NamedTuple

BOUNDARY = "b7"
DECLARED = f"multipart/form-data; boundary={BOUNDARY}"


def part(content: bytes, disposition: str | bytes, *further: str) -> bytes:
    """A part of a form: its content, its ``Content-Disposition`` behind ``form-data; ``, and more header lines."""
    told = disposition if isinstance(disposition, bytes) else disposition.encode()
    lines = [b"Content-Disposition: form-data; " + told, *(line.encode() for line in further)]
    return b"\r\n".join([*lines, b"", content])


def field(name: str, value: str) -> bytes:
    return part(value.encode(), f'name="{name}"')


def upload(content: bytes, filename: str, *further: str) -> bytes:
    """A file, as browsers and curl send it."""
    return part(content, f'name="file"; filename="{filename}"', *further)


def form(*parts: bytes, boundary: str = BOUNDARY) -> bytes:
    delimiter = b"--" + boundary.encode()
    return b"".join(delimiter + b"\r\n" + one + b"\r\n" for one in parts) + delimiter + b"--\r\n"


class Bad(NamedTuple):
    """What is no form, and why not."""

    body: bytes
    reason: str
    declared: str = DECLARED


FILE = upload(b"%PDF-1.7", "a.pdf")
GOOD = form(FILE, field("ocr_strategy", "All"))
CUT, HEADLESS, MALFORMED = "the form is cut off", "a part of the form has no head", "the head of a part is malformed"
NAMELESS, TWICE = "a part of the form has no name", "the form names a field twice"
NO_BOUNDARY = "the form has no boundary of 1 to 70 characters"
UNREADABLE = "Content-Disposition has a parameter that cannot be read"
BAD_FORMS = {
    "no boundary": Bad(GOOD, NO_BOUNDARY, "multipart/form-data"),
    "an empty boundary": Bad(GOOD, NO_BOUNDARY, "multipart/form-data; boundary="),
    "a boundary that is too long": Bad(
        form(FILE, boundary="x" * 71), NO_BOUNDARY, f"multipart/form-data; boundary={'x' * 71}"
    ),
    "a boundary that is no ASCII": Bad(GOOD, NO_BOUNDARY, 'multipart/form-data; boundary="ж"'),
    "two boundaries": Bad(GOOD, "Content-Type has a parameter that cannot be read", f"{DECLARED}; boundary={BOUNDARY}"),
    "a boundary in a charset": Bad(
        GOOD, "Content-Type has a parameter that cannot be read", "multipart/form-data; boundary*=idna''%ff"
    ),
    "a type that is too long": Bad(
        GOOD, "the Content-Type is longer than 1024 characters", "multipart/form-data" + ";" * 10_000
    ),
    "another boundary": Bad(GOOD, CUT, "multipart/form-data; boundary=b8"),
    "nothing": Bad(b"", CUT),
    "JSON": Bad(b'{"file":"https://files.example.test/in.pdf"}', CUT),
    "a form that ends nowhere": Bad(GOOD.removesuffix(b"--b7--\r\n"), CUT),
    "a form that is cut in its end": Bad(GOOD[:-3], CUT),
    "a form that is cut in a file": Bad(GOOD[:90], CUT),
    "a form that is cut in a head": Bad(GOOD[:30], CUT),
    "33 parts": Bad(form(*(field(f"f{n}", "1") for n in range(33))), "the form has more than 32 parts"),
    "parts without end": Bad(b"--b7\r\n" * 150_000, "the form has more than 32 parts"),
    "a part without a head": Bad(form(b"%PDF-1.7"), HEADLESS),
    "a part that begins on the line of its boundary": Bad(form(FILE).replace(b"b7\r\n", b"b7 x\r\n", 1), HEADLESS),
    "lines without a carriage return": Bad(GOOD.replace(b"\r\n", b"\n"), CUT),
    "a part with an empty head": Bad(form(b"\r\n\r\n%PDF-1.7"), MALFORMED),
    "a head without a disposition": Bad(form(b"Content-Type: application/pdf\r\n\r\n1"), MALFORMED),
    "a head with two dispositions": Bad(
        form(part(b"1", "name=a", "Content-Disposition: form-data; name=b")), MALFORMED
    ),
    "a line in a head that is no field": Bad(form(part(b"1", "name=a", "nonsense")), MALFORMED),
    "a head with a line end in it": Bad(form(part(b"1", "name=a", "X: y\n\nz")), MALFORMED),
    "a head that is too long": Bad(
        form(part(b"1", "name=a", f"X: {'y' * 1024}")), "the head of a part is longer than 1024 bytes"
    ),
    "a head of many lines": Bad(
        form(part(b"1", "name=a", *["X: y"] * 1000)), "the head of a part is longer than 1024 bytes"
    ),
    "a name that is not UTF-8": Bad(form(part(b"1", b'name="\xff"')), "the head of a part is not UTF-8"),
    "a surrogate in a name": Bad(form(part(b"1", b'name="\xed\xa0\x80"')), "the head of a part is not UTF-8"),
    "a NUL in a name": Bad(form(part(b"1", 'name="a\0"')), "a text has a NUL character"),
    "a NUL in a file's name": Bad(form(upload(b"%PDF-", "a\0.pdf")), "a text has a NUL character"),
    "no name": Bad(form(part(b"1", 'filename="a.pdf"')), NAMELESS),
    "an empty name": Bad(form(part(b"1", 'name=""')), NAMELESS),
    "a disposition of another kind": Bad(form(FILE).replace(b"form-data; name", b"attachment; name"), NAMELESS),
    "a name twice": Bad(form(part(b"1", 'name="a"; name="b"')), UNREADABLE),
    "a name in a charset": Bad(form(part(b"1", "name*=utf-8''a")), UNREADABLE),
    "a file's name in a charset that decodes to none": Bad(
        form(part(b"1", "name=file; filename*=unicode_escape''%5Cud800")), UNREADABLE
    ),
    "a disposition of nothing but semicolons": Bad(form(part(b"1", "name=a" + ";" * 900)), UNREADABLE),
    "a field twice": Bad(form(field("ocr_strategy", "All"), field("ocr_strategy", "All"), FILE), TWICE),
    "a file twice": Bad(form(FILE, FILE), TWICE),
    "a field that nobody knows, twice": Bad(form(FILE, field("x", "1"), field("x", "2")), TWICE),
    "a form in a form": Bad(
        form(part(form(FILE, boundary="in"), "name=a", "Content-Type: multipart/mixed; boundary=in")),
        "a part of the form is a form",
    ),
    "a part that is encoded": Bad(
        form(upload(b"JVBERi0=", "a.pdf", "Content-Transfer-Encoding: base64")), "a part of the form is encoded"
    ),
    "a MiB of line ends": Bad(b"\r\n" * 2**19, CUT),
}
