"""Reading forms: what comes out of a good one, and that whatever else is sent is refused, and soon."""

import time
from random import Random

import pytest
from aiohttp import FormData

from api.forms import HEAD_MAX_BYTES, PARTS_MAX, Part, read_form
from api.refusals import Invalid
from tests.form_bodies import BAD_FORMS, DECLARED, FILE, GOOD, Bad, field, form, part, upload

SOON_SECONDS = 0.1
"""Far more than it takes, for other work runs beside; a reader that goes line by line takes several times that."""


def read(body: bytes, declared: str = DECLARED) -> dict[str, Part]:
    found = read_form({"Content-Type": declared}, body)
    assert found is not None
    return dict(found)


PDF = Part(b"%PDF-1.7", "a.pdf")
DECLARATIONS = {
    "plain": DECLARED,
    "in quotation marks": 'multipart/form-data; boundary="b7"',
    "in capitals": "Multipart/Form-Data;Boundary=b7",
    "with more": "multipart/form-data; charset=utf-8; boundary=b7",
}


@pytest.mark.parametrize("declared", DECLARATIONS.values(), ids=DECLARATIONS)
def test_a_form_is_its_parts_by_name(declared: str) -> None:
    assert read(GOOD, declared) == {"file": PDF, "ocr_strategy": Part(b"All")}


@pytest.mark.parametrize(
    "declared", ["", "application/json", "multipart/mixed; boundary=b7", "multipart/form-dataX; boundary=b7", "\udcff"]
)
def test_what_is_not_declared_as_a_form_is_none(declared: str) -> None:
    assert read_form({"Content-Type": declared}, GOOD) is None
    assert read_form({}, GOOD) is None


def test_a_content_is_kept_to_the_byte() -> None:
    hard = bytes(range(256)) + b"\r\n--b\r\n--\r\n\r\n--b6--\r\n\n\r" + b"\r\n--" * 3
    for content in (b"", b"\r\n", b"--", hard, hard * 4000):
        assert read(form(upload(content, "a.pdf"), field("x", "y"))) == {
            "file": Part(content, "a.pdf"),
            "x": Part(b"y"),
        }


READINGS = {
    "without quotation marks": (part(b"1", "name=a; filename=b.pdf"), "a", Part(b"1", "b.pdf")),
    "in other letters": (b"content-disposition: FORM-DATA; NAME=a\r\n\r\n1", "a", Part(b"1")),
    "UTF-8": (part(b"1", 'name="ключ"; filename="файл 1.pdf"'), "ключ", Part(b"1", "файл 1.pdf")),
    "a quotation mark, escaped": (part(b"1", r'name="a"; filename="b\"c.pdf"'), "a", Part(b"1", 'b"c.pdf')),
    "a semicolon in a name": (part(b"1", 'name="a"; filename="b;c.pdf"'), "a", Part(b"1", "b;c.pdf")),
    "an empty file name": (part(b"1", 'name="a"; filename=""'), "a", Part(b"1", "")),
    "a type": (part(b"1", "name=a", "Content-Type: Image/PNG; x=y"), "a", Part(b"1", None, "image/png")),
    "a length": (part(b"1", "name=a", "Content-Length: 99"), "a", Part(b"1")),
    "a way in which it is not encoded": (part(b"1", "name=a", "Content-Transfer-Encoding: Binary"), "a", Part(b"1")),
}


@pytest.mark.parametrize(("sent", "name", "wanted"), READINGS.values(), ids=READINGS)
def test_a_head_says_a_name_and_may_say_more(sent: bytes, name: str, wanted: Part) -> None:
    assert read(form(sent)) == {name: wanted}


def test_what_stands_around_the_parts_is_passed_over() -> None:
    assert read(b"a preamble\r\n" + GOOD + b"an epilogue\r\n") == read(GOOD)
    assert read(GOOD.replace(b"--b7\r\n", b"--b7 \t\r\n")) == read(GOOD)
    assert read(GOOD.rstrip()) == read(GOOD)
    assert read(form()) == {}


def test_the_bounds_themselves_are_within() -> None:
    full = form(*(field(f"f{number}", "1") for number in range(PARTS_MAX)))
    assert len(read(full)) == PARTS_MAX
    head = part(b"", "name=a", "X: ").removesuffix(b"\r\n\r\n")
    longest = part(b"1", "name=a", "X: " + "y" * (HEAD_MAX_BYTES - len(head)))
    assert read(form(longest)) == {"a": Part(b"1")}


async def test_what_a_library_sends_is_read() -> None:
    data = FormData(default_to_multipart=True)
    data.add_field("ocr_strategy", "All")
    data.add_field("file", b"%PDF-\r\n--1", filename='файл "1".pdf', content_type="application/pdf")
    payload = data()
    found = read(await payload.as_bytes(), payload.headers["Content-Type"])
    assert found["ocr_strategy"].content == b"All"
    assert found["file"] == Part(b"%PDF-\r\n--1", found["file"].filename, "application/pdf")


@pytest.mark.parametrize("bad", BAD_FORMS.values(), ids=BAD_FORMS)
def test_what_is_no_form_is_refused_and_soon(bad: Bad) -> None:
    begun = time.perf_counter()
    with pytest.raises(Invalid) as refused:
        read(bad.body, bad.declared)
    assert time.perf_counter() - begun < SOON_SECONDS
    assert refused.value.reason == bad.reason


SPLINTERS = [
    *(b"--b7", b"--", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b";", b'"', b"=", b":", b"\\", b" ", b"\x00", b"\xff"),
    *(b"; filename*=idna''%ff", b"; name*0*=a", b"=?utf-8?q?=00?=", "ж".encode(), b"\r\n folded"),
    *(b"Content-Type: message/rfc822\r\n", b"Content-Type: multipart/mixed\r\n", b"Content-Type: ;;\r\n"),
]


def test_whatever_becomes_of_a_form_on_its_way_it_is_read_or_refused() -> None:
    dice, kept, refused = Random(7), 0, 0
    for _ in range(5000):
        body = bytearray(form(FILE, field("ocr_strategy", "All"), upload(b"x", "b.pdf", "Content-Type: image/png")))
        body = body.replace(b'"file"', b'"other"', 1)
        for _ in range(dice.randint(1, 3)):
            at = dice.randrange(len(body))
            if dice.random() < 0.5:
                body[at:at] = dice.choice(SPLINTERS)
            else:
                del body[at : at + dice.randint(1, 20)]
        try:
            found = read(bytes(body))
        except Invalid:
            refused += 1
            continue
        kept += 1
        for name, one in found.items():
            assert f"{name}{one.filename}{one.media_type}".encode()  # no text that cannot be carried on
    assert kept > 100
    assert refused > 100
