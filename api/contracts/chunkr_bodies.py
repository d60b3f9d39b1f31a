"""What Chunkr's clients send: a document with a configuration, and a change of the configuration; as JSON or as a form.

Fields that nobody knows are passed over, as the server does (the npm client sends some); those that are known have
their type. A null is as good as nothing: the PyPI client sends ``"file_name": null``.

The server has a route for each: ``/parse`` for JSON, and the deprecated one without it for forms. Here what the body is
decides, by its ``Content-Type``, on either (chosen). A field of a form is JSON, as the stored server wants it.
"""

from typing import Annotated, Any, Literal

import msgspec

from api.bodies import fingerprint, read_json
from api.contracts.chunkr_files import check_file, uploaded
from api.contracts.shape import Asked, Idempotency, Order
from api.forms import Form, read_form
from api.refusals import Invalid
from ledger.catalogue import Catalogue
from ledger.commands import RequestUpdate
from ledger.task import Task
from ledger.times import US_PER_SECOND

MODEL = "chunkr-parse"
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
JSON_WORDS = {b"true", b"false", b"null"}
KEY_MAX_CHARS = 255
KEY_WINDOW_US = 24 * 3600 * US_PER_SECOND  # chosen: the server has no keys; the npm client repeats its own on a retry

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
        Unfit: the file is not base64, or of no type that is parsed; in a form it has no name.
    """
    form = read_form(asked.headers, asked.body)
    body = read_json(asked.body, dict[str, Any]) if form is None else _fields(form) | _file(form)
    document = _known(body, _Document)
    check_file(document.file)
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
            raise Invalid(f"segment_processing has {name} twice", param="segment_processing")
        segments[name] = how
    return segments


def _merged(before: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """*given* over what was *before*: chunking member by member, segments one by one."""
    inner: dict[str, Any] = {}
    for name in {"chunk_processing", "segment_processing"} & given.keys():
        old = before.get(name)
        inner[name] = {**old, **given[name]} if isinstance(old, dict) else given[name]
    return {**before, **given, **inner}


# Forms


def _fields(form: Form) -> dict[str, Any]:
    """The configuration that a form brings; what nobody knows of it is passed over unread."""
    return {name: _value(name, form[name].content) for name in _Configuration.__struct_fields__ if name in form}


def _value(name: str, content: bytes) -> object:
    """A field's JSON; a word may do without its quotation marks, as people type it into curl (chosen)."""
    if content.isalpha() and content not in JSON_WORDS:
        return content.decode()
    try:
        return read_json(content, object)
    except Invalid as error:
        raise Invalid(f"{name}: {error.reason}", param=name) from None


def _file(form: Form) -> dict[str, str]:
    return uploaded(form["file"]) if "file" in form else {}


# Update


def update(asked: Asked, task: Task) -> RequestUpdate:
    """Run *task* again under its configuration as changed; ``pipeline`` stays what it was.

    Raises:
        Invalid: the body is not of this shape.
    """
    form = read_form(asked.headers, asked.body)
    body = read_json(asked.body, dict[str, Any]) if form is None else _fields(form)
    given = _given(_known(body, _Configuration))
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
