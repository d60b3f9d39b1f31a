"""What Chunkr's clients send: a document with a configuration, a change of the configuration, and which tasks to list.

Fields that nobody knows are passed over, as the server does (the npm client sends some); those that are known have
their type. A null is as good as nothing: the PyPI client sends ``"file_name": null``.
"""

import base64
import binascii
from typing import Annotated, Any, Literal

import msgspec

from api.bodies import fingerprint, read_json, url_in
from api.contracts.shape import Asked, Idempotency, Order
from api.refusals import Invalid
from ledger.catalogue import Catalogue
from ledger.commands import RequestUpdate
from ledger.cursors import place
from ledger.ids import TaskId
from ledger.ledger import Wanted
from ledger.task import Status, Task
from ledger.times import US_PER_SECOND, parse_rfc3339

MODEL = "chunkr-parse"
STATUSES = {
    Status.QUEUED: "Starting",
    Status.RUNNING: "Processing",
    Status.COMPLETED: "Succeeded",
    Status.FAILED: "Failed",
    Status.CANCELLED: "Cancelled",
    Status.EXPIRED: "Failed",
}
DEFAULTS: dict[str, Any] = {
    "chunk_processing": {"target_length": 512, "tokenizer": {"Enum": "Word"}},
    "high_resolution": False,
    "ocr_strategy": "All",
    "segmentation_strategy": "LayoutAnalysis",
    "error_handling": "Fail",
    "segment_processing": {},
}
SEGMENTS = (
    *("Caption", "Footnote", "Formula", "ListItem", "Page", "PageFooter", "PageHeader", "Picture", "SectionHeader"),
    *("Table", "Text", "Title"),
)
_SEGMENTS = {name.lower(): name for name in SEGMENTS}
KEY_MAX_CHARS = 255
KEY_WINDOW_US = 24 * 3600 * US_PER_SECOND  # chosen: the server has no keys; the npm client repeats its own on a retry
ADDRESS_MAX_CHARS = 2048
SKIP_MAX = 10_000  # chosen: each task that a page skips is looked at; further on goes a cursor
LIMIT_DEFAULT, LIMIT_MAX = 50, 1000  # chosen: the server has no bound
DIGITS_MAX = 9
TASK_TYPES = {"Parse", "Extract"}
NPM_PARAMS = ("cursor", "sort", "statuses", "task_types")


class Unfit(Invalid):
    """A request that the vendor refuses in words of its own: the *reason* is the whole text."""


Text = Annotated[str, msgspec.Meta(max_length=1024)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Cropping = Literal["All", "Auto"]
Generation = Literal["LLM", "Auto", "Ignore"]


class _Known(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of an object; None is what was not given."""


class _Tokenizer(_Known, frozen=True, kw_only=True):
    Enum: Literal["Word", "Cl100kBase", "XlmRobertaBase", "BertBaseUncased"] | None = None
    String: Text | None = None


class _Chunking(_Known, frozen=True, kw_only=True):
    target_length: Count | None = None
    tokenizer: _Tokenizer | None = None
    ignore_headers_and_footers: bool | None = None


class _Segment(_Known, frozen=True, kw_only=True):
    format: Literal["Html", "Markdown"] | None = None
    strategy: Generation | None = None
    crop_image: Cropping | None = None
    extended_context: bool | None = None
    description: bool | None = None
    llm: Text | None = None
    embed_sources: list[Literal["Content", "HTML", "Markdown", "LLM"]] | None = None
    html: Generation | None = None
    markdown: Generation | None = None


class _Model(_Known, frozen=True, kw_only=True):
    Model: Text


class _Llm(_Known, frozen=True, kw_only=True):
    model_id: Text | None = None
    fallback_strategy: Literal["None", "Default"] | _Model | None = None
    max_completion_tokens: Count | None = None
    temperature: float | None = None


class _Configuration(_Known, frozen=True, kw_only=True):
    chunk_processing: _Chunking | None = None
    expires_in: Count | None = None
    high_resolution: bool | None = None
    ocr_strategy: Literal["All", "Auto"] | None = None
    segmentation_strategy: Literal["LayoutAnalysis", "Page"] | None = None
    error_handling: Literal["Fail", "Continue"] | None = None
    segment_processing: dict[str, _Segment | None] | None = None
    llm_processing: _Llm | None = None
    pipeline: Literal["Azure", "Chunkr"] | None = None


class _Document(_Configuration, frozen=True, kw_only=True):
    file: str
    file_name: Text | None = None


# Create


def order(_: Catalogue, asked: Asked) -> Order:
    """The document to parse, under the configuration with its defaults filled in.

    Raises:
        Invalid: the body is not of this shape, or the Idempotency-Key is not 1 to 255 characters.
        Unfit: the file is not base64, or of no type that is parsed.
    """
    body = read_json(asked.body, dict[str, Any])
    document = _known(body, _Document)
    _check_file(document.file)
    named = {"file": document.file} | ({"file_name": document.file_name} if document.file_name else {})
    keys = _keys(asked, fingerprint(body))
    return Order(model=MODEL, input=named | _merged(DEFAULTS, _given(document)), metadata={}, keys=keys)


def _keys(asked: Asked, body_fingerprint: str) -> tuple[Idempotency, ...]:
    key = asked.headers.get("Idempotency-Key")
    if key is None:
        return ()
    if not 1 <= len(key) <= KEY_MAX_CHARS:
        raise Invalid(f"Idempotency-Key must be 1 to {KEY_MAX_CHARS} characters", param="Idempotency-Key")
    return (Idempotency("chunkr create", key, body_fingerprint, KEY_WINDOW_US),)


def _known(body: dict[str, Any], kind: type[msgspec.Struct]) -> Any:  # noqa: ANN401 - a *kind*
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise Invalid(str(error)) from None


def _given(configuration: _Configuration) -> dict[str, Any]:
    """What was given of the configuration, segments under the names that the vendor prints."""
    given: dict[str, Any] = msgspec.to_builtins(configuration)
    chunking = configuration.chunk_processing
    tokenizer = None if chunking is None else chunking.tokenizer
    if tokenizer is not None and (tokenizer.Enum is None) is (tokenizer.String is None):
        raise Invalid("a tokenizer is an Enum or a String", param="chunk_processing.tokenizer")
    if "segment_processing" in given:
        given["segment_processing"] = _segments(given["segment_processing"])
    return {name: value for name, value in given.items() if name not in {"file", "file_name"}}


def _segments(given: dict[str, Any]) -> dict[str, Any]:
    """Each segment by its own name: the PyPI client says ``section_header`` for ``SectionHeader`` (chosen)."""
    segments: dict[str, Any] = {}
    for spelled, how in given.items():
        name = _SEGMENTS.get(spelled.replace("_", "").lower())
        if name is None or how is None:
            continue
        if name in segments:
            raise Invalid(f"segment {name} is configured twice", param="segment_processing")
        segments[name] = how
    return segments


def _merged(before: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """*given* over what was *before*: chunking member by member, segments one by one."""
    inner: dict[str, Any] = {}
    for name in {"chunk_processing", "segment_processing"} & given.keys():
        old = before.get(name)
        inner[name] = {**old, **given[name]} if isinstance(old, dict) else given[name]
    return {**before, **given, **inner}


# The file

ZIP = b"PK\x03\x04"
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
MAGIC = (b"%PDF-", ZIP, OLE, b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"GIF8", b"BM", b"RIFF")
"""How the files begin that are parsed: PDF, office documents new and old, images."""
OFFICE = "application/vnd.openxmlformats-officedocument."
MIME_TYPES = {
    "application/pdf",
    f"{OFFICE}wordprocessingml.document",
    f"{OFFICE}presentationml.presentation",
    f"{OFFICE}spreadsheetml.sheet",
    *("application/msword", "application/vnd.ms-powerpoint", "application/vnd.ms-excel"),
    *("image/png", "image/jpeg", "image/jpg", "image/tiff", "image/gif", "image/bmp", "image/webp"),
}


def _check_file(file: str) -> None:
    """Pass an address, a data URL, or base64: what a file is, it says by its type, or else by how it begins."""
    if file.startswith(("http://", "https://")):
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


# Update


def update(asked: Asked, task: Task) -> RequestUpdate:
    """Run *task* again under its configuration as changed; ``pipeline`` stays what it was.

    Raises:
        Invalid: the body is not of this shape.
    """
    given = _given(_known(read_json(asked.body, dict[str, Any]), _Configuration))
    given.pop("pipeline", None)
    before = {**DEFAULTS, **task.run.input}
    after = _merged(before, given)
    return RequestUpdate(
        task_id=task.task_id,
        at_us=asked.now_us,
        actor=asked.key_id,
        request_id=asked.request_id,
        expected_version=task.version,
        account=asked.account,
        input=task.run.input if after == before else after,  # a default that is spelled out changes nothing
    )


# List


def is_npm(asked: Asked) -> bool:
    """Whether the list is asked for as the npm client does: both forms share the path (chosen)."""
    return "X-Stainless-Lang" in asked.headers or any(name in asked.query for name in NPM_PARAMS)


def wanted(asked: Asked) -> Wanted:
    """The tasks of the account, of those statuses, created from ``start`` to ``end``.

    Raises:
        Invalid: a parameter is not of its shape.
        Unfit: a ``page`` has no ``limit``.
    """
    query = asked.query
    if "page" in query and "limit" not in query:
        raise Unfit("Limit is required when page is provided", param="limit")
    limit = _count(asked, "limit", default=LIMIT_DEFAULT, most=LIMIT_MAX)
    page = _count(asked, "page", default=1, most=1 + SKIP_MAX // limit)
    oldest_first = _one_of(query.get("sort", "desc"), {"asc", "desc"}, "sort") == "asc"
    words = _words(asked, "statuses", set(STATUSES.values()))
    types = _words(asked, "task_types", TASK_TYPES)
    start_us, end_us, seen = _time(asked, "start"), _time(asked, "end"), _cursor(asked)

    def fits(task: Task) -> bool:
        in_time = (start_us is None or task.created_at_us >= start_us) and (
            end_us is None or task.created_at_us <= end_us
        )
        return in_time and "Parse" in types and STATUSES[task.status] in words

    after = [] if start_us is None else [_edge(start_us)]
    before = [] if end_us is None else [_edge(end_us + 1000)]
    if seen is not None:
        (after if oldest_first else before).append(seen)
    return Wanted(
        account=asked.account,
        limit=limit,
        fits=fits,
        skip=(page - 1) * limit,
        before=min(before, default=None),
        after=max(after, default=None),
        oldest_first=oldest_first,
    )


def _count(asked: Asked, name: str, *, default: int, most: int) -> int:
    text = asked.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX and 1 <= int(text) <= most):
        raise Invalid(f"{name} is not a number from 1 to {most}", param=name)
    return int(text)


def _one_of(word: str, known: set[str], name: str) -> str:
    if word not in known:
        raise Invalid(f"{name} is none of {', '.join(sorted(known))}", param=name)
    return word


def _words(asked: Asked, name: str, known: set[str]) -> set[str]:
    """The words that are listed, with commas between them; all of them, if none is."""
    text = asked.query.get(name)
    return known if text is None else {_one_of(word, known, name) for word in text.split(",")}


def _time(asked: Asked, name: str) -> int | None:
    text = asked.query.get(name)
    at_us = None if text is None else parse_rfc3339(text)
    if text is not None and at_us is None:
        raise Invalid(f"{name} is not an RFC 3339 time", param=name)
    return at_us


def _edge(at_us: int) -> TaskId:
    """The first id there could be at that millisecond: ids are in order of time."""
    return TaskId((at_us // 1000).to_bytes(6, "big") + bytes(10))


def _cursor(asked: Asked) -> TaskId | None:
    text = asked.query.get("cursor")
    if text is None:
        return None
    found = place(asked.log_id, text)
    if found is None or len(found) != 16:  # noqa: PLR2004 - a task's id
        raise Invalid("cursor is none that this list gave out", param="cursor")
    return TaskId(found)
