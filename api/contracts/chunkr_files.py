"""Chunkr's documents: what is taken for one, and what is told of it.

A file comes by its address, or is sent along: as base64, as a data URL, or in a form. Sent along, it is kept in the log
as the text that came; a form's file as the one that a JSON create would have sent, so both are one request.

Source: the open-source server (lumina-ai-inc/chunkr) and the types of its npm client.
"""

import base64
import binascii
from typing import Any

from api.bodies import url_in
from api.contracts.chunkr_words import Unfit
from api.forms import Part
from api.refusals import Invalid

ADDRESS_MAX_CHARS = 2048
DATA_URL_MAX_CHARS = 8192
"""Of a file's text that an answer shows when it is asked for data URLs (the vendor is silent on what is small)."""

ZIP = b"PK\x03\x04"
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
MAGIC = (b"%PDF-", ZIP, OLE, b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"GIF8", b"BM", b"RIFF")
"""How the files begin that are parsed: PDF, office documents new and old, images."""
OFFICE = "application/vnd.openxmlformats-officedocument."
SUFFIXES = {
    "pdf": "application/pdf",
    "docx": f"{OFFICE}wordprocessingml.document",
    "pptx": f"{OFFICE}presentationml.presentation",
    "xlsx": f"{OFFICE}spreadsheetml.sheet",
    "doc": "application/msword",
    "ppt": "application/vnd.ms-powerpoint",
    "xls": "application/vnd.ms-excel",
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "gif": "image/gif",
    "bmp": "image/bmp",
    "webp": "image/webp",
}
"""The types that are parsed, by how their files are named."""
MIME_TYPES = {*SUFFIXES.values(), "image/jpg"}
UNTYPED = "application/octet-stream"
"""What clients say of a file whose type they do not know."""


def check_file(file: str) -> None:
    """Pass an address, a data URL, or base64: what a file is, it says by its type, or else by how it begins.

    Raises:
        Invalid: it is an address that is none, or too long.
        Unfit: it is not base64, or of no type that is parsed.
    """
    if _is_address(file):
        if len(file) > ADDRESS_MAX_CHARS:
            raise Invalid(f"file is an address of more than {ADDRESS_MAX_CHARS} characters", param="file")
        url_in(file, "file")
        return
    head, comma, text = file.partition(",") if file.startswith("data:") else ("", "", file)
    mime_type, *further = head.removeprefix("data:").split(";")
    if head and (not comma or "base64" not in further):
        raise Unfit("Invalid base64 data", param="file")
    try:
        content = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise Unfit("Invalid base64 data", param="file") from None
    fits = mime_type.lower() in MIME_TYPES if mime_type else content.startswith(MAGIC)
    if not fits or not content:
        raise Unfit("Unsupported file type", param="file")


def uploaded(part: Part) -> dict[str, str]:
    """The file of a form, as a create in JSON has it: under the type that the part says, if it says one.

    Raises:
        Unfit: it has no name, or a type that is not parsed.
    """
    if not part.filename:
        raise Unfit("File must have a filename", param="file")
    typed = part.media_type not in {None, UNTYPED}
    if typed and part.media_type not in MIME_TYPES:
        raise Unfit("Unsupported file type", param="file")
    text = base64.b64encode(part.content).decode()
    return {"file": f"data:{part.media_type};base64,{text}" if typed else text, "file_name": part.filename}


def file_url(asked: dict[str, Any], *, data_urls: bool) -> str | None:
    """Where the file of that create is: its address; with *data_urls* also a small one that was sent along."""
    file = asked.get("file")
    if not isinstance(file, str):
        return None
    if _is_address(file):
        return file
    if not data_urls or len(file) > DATA_URL_MAX_CHARS:
        return None
    return file if file.startswith("data:") else f"data:{mime_type(asked) or UNTYPED};base64,{file}"


def file_name(asked: dict[str, Any]) -> str | None:
    """The name that the create gave to its file, or else the address does."""
    name, file = asked.get("file_name"), asked.get("file")
    if name or not isinstance(file, str) or not _is_address(file):
        return str(name) if name else None
    _, _, path = file.partition("#")[0].partition("?")[0].partition("://")[2].partition("/")
    return path.rpartition("/")[2] or None


def mime_type(asked: dict[str, Any]) -> str | None:
    """The type that the file's data URL says, or else its name; None is not known."""
    file = asked.get("file")
    if isinstance(file, str) and file.startswith("data:"):
        said = file.partition(",")[0].removeprefix("data:").partition(";")[0].lower()
        if said in MIME_TYPES:
            return said
    name = file_name(asked) or ""
    return SUFFIXES.get(name.rpartition(".")[2].lower()) if "." in name else None


def _is_address(file: str) -> bool:
    return file.startswith(("http://", "https://"))
