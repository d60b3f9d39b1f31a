"""LemonData: what its four create routes read, and the tasks that they order.

Source: LemonData API reference, "Create video" (docs.lemondata.cc). Of the other three routes no page was found: their
fields follow the video's and those of the tasks' outputs (chosen).

====================== ========================== ===================================== =======================
route                  default model              required                              price
====================== ========================== ===================================== =======================
/v1/videos/generations sora-2                     prompt, or an image or a video        the model's
/v1/images/generations the first of the catalogue prompt                                the model's, ``n`` times
/v1/music/generations  the first of the catalogue prompt or lyrics                      the model's
/v1/3d/generations     the first of the catalogue prompt or image_url                   the model's
====================== ========================== ===================================== =======================

Fields that nobody knows are passed over; null is as good as absent (chosen).
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from api.bodies import fingerprint, read_json, url_in
from api.contracts.shape import Asked, Idempotency, Order
from api.refusals import Invalid
from ledger.catalogue import Catalogue
from ledger.money import AMOUNT_MAX_MICROS
from ledger.times import US_PER_DAY

KEY_WINDOW_US = US_PER_DAY  # chosen, as the header itself: the vendor documents none
KEY_MAX_CHARS = 255

# Lengths and the bounds of duration, seed and n are chosen.
Prompt = Annotated[str, msgspec.Meta(max_length=8000)]
Line = Annotated[str, msgspec.Meta(max_length=255)]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=3600)]
Seed = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Count = Annotated[int, msgspec.Meta(ge=1, le=10)]

Operation: TypeAlias = Literal[
    "text-to-video",
    "image-to-video",
    "reference-to-video",
    "start-end-to-video",
    "video-to-video",
    "video-extension",
    "audio-to-video",
    "motion-control",
]


class _Body(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    model: Line | None = None
    prompt: Prompt | None = None
    user: Line | None = None


class VideoBody(_Body, frozen=True, kw_only=True):
    operation: Operation | None = None
    image_url: str | None = None
    image: str | None = None
    start_image: str | None = None
    end_image: str | None = None
    reference_images: Annotated[list[str], msgspec.Meta(max_length=3)] = []
    video_url: str | None = None
    audio_url: str | None = None
    duration: Seconds | None = None
    aspect_ratio: Word | None = None
    resolution: Word | None = None
    fps: Annotated[int, msgspec.Meta(ge=1, le=120)] | None = None
    negative_prompt: Prompt | None = None
    seed: Seed | None = None
    cfg_scale: Annotated[float, msgspec.Meta(ge=0, le=20)] | None = None
    motion_strength: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    output_audio: bool | None = None
    camel_output_audio: bool | None = msgspec.field(default=None, name="outputAudio")


class ImageBody(_Body, frozen=True, kw_only=True):
    n: Count | None = None
    size: Word | None = None
    aspect_ratio: Word | None = None
    quality: Word | None = None
    style: Word | None = None
    background: Word | None = None
    negative_prompt: Prompt | None = None
    seed: Seed | None = None
    response_format: Literal["url"] | None = None  # chosen: a task shows addresses, never the bytes


class MusicBody(_Body, frozen=True, kw_only=True):
    lyrics: Prompt | None = None
    title: Line | None = None
    style: Annotated[str, msgspec.Meta(max_length=1000)] | None = None
    instrumental: bool | None = None


class ModelBody(_Body, frozen=True, kw_only=True):
    image_url: str | None = None
    negative_prompt: Prompt | None = None
    seed: Seed | None = None


def video(catalogue: Catalogue, asked: Asked) -> Order:
    """The video that is ordered.

    Raises:
        Invalid: the body is not of this shape, or the model makes something else.
    """
    body = read_json(asked.body, VideoBody)
    for field in ("image_url", "start_image", "end_image", "video_url", "audio_url"):
        _address(getattr(body, field), field)
    _address(body.image, "image", inline=True)
    for one in body.reference_images:
        _address(one, "reference_images", inline=True)
    has_picture = any((body.image_url, body.image, body.start_image, body.end_image, body.reference_images))
    if not body.prompt and not has_picture and not body.video_url:  # chosen: "required for most models"
        raise Invalid("prompt is required without an image or a video", param="prompt")
    if body.output_audio is not None and body.camel_output_audio is not None:
        raise Invalid("output_audio and outputAudio are one field: give it once", param="output_audio")
    if body.camel_output_audio is not None:
        body = msgspec.structs.replace(body, output_audio=body.camel_output_audio, camel_output_audio=None)
    return _order(catalogue, asked, body, "video", default="sora-2", capability=body.operation or _operation(body))


def image(catalogue: Catalogue, asked: Asked) -> Order:
    """The images that are ordered: the price is that of one, ``n`` times.

    Raises:
        Invalid: the body is not of this shape, or the model makes something else.
    """
    body = read_json(asked.body, ImageBody)
    _required(body.prompt, "prompt")
    order = _order(catalogue, asked, body, "image")
    terms = catalogue.terms.get(("lemondata", order.model))
    if terms is None:
        return order
    estimated_micros = terms.estimated_micros * (body.n or 1)
    if estimated_micros > AMOUNT_MAX_MICROS:
        raise Invalid("n is too many at this price", param="n")
    return order._replace(estimated_micros=estimated_micros)


def music(catalogue: Catalogue, asked: Asked) -> Order:
    """The song that is ordered.

    Raises:
        Invalid: the body is not of this shape, or the model makes something else.
    """
    body = read_json(asked.body, MusicBody)
    _required(body.prompt or body.lyrics, "prompt")
    return _order(catalogue, asked, body, "music")


def model3d(catalogue: Catalogue, asked: Asked) -> Order:
    """The 3D model that is ordered, from words or from a picture.

    Raises:
        Invalid: the body is not of this shape, or the model makes something else.
    """
    body = read_json(asked.body, ModelBody)
    _address(body.image_url, "image_url", inline=True)
    _required(body.prompt or body.image_url, "prompt")
    return _order(catalogue, asked, body, "3d", capability="image-to-3d" if body.image_url else "text-to-3d")


def _operation(body: VideoBody) -> Operation:
    """The operation that the inputs speak of: the first that fits (the order is chosen)."""
    return next((operation for given, operation in _INFERRED if given(body)), "text-to-video")


_INFERRED: tuple[tuple[Callable[[VideoBody], Any], Operation], ...] = (
    (lambda body: body.video_url and (body.image_url or body.image or body.reference_images), "motion-control"),
    (lambda body: body.video_url, "video-to-video"),
    (lambda body: body.end_image, "start-end-to-video"),
    (lambda body: body.reference_images, "reference-to-video"),
    (lambda body: body.audio_url, "audio-to-video"),
    (lambda body: body.image_url or body.image or body.start_image, "image-to-video"),
)


def _order(  # noqa: PLR0913 - what the routes differ in
    catalogue: Catalogue,
    asked: Asked,
    body: _Body,
    kind: str,
    *,
    default: str | None = None,
    capability: str | None = None,
) -> Order:
    name = (default or _first_of(catalogue, kind)) if body.model is None else body.model
    model = catalogue.find("lemondata", name)  # None is refused later on, but for what was taken before it left
    if model is not None and _kind(model.capability) != kind:
        raise Invalid(f"this model makes no {kind}", param="model")
    given = msgspec.to_builtins(body)
    user, _ = given.pop("user", None), given.pop("model", None)
    return Order(
        model=name,
        input=given,
        metadata={} if user is None else {"user": user},
        capability=capability,
        keys=_keys(asked, kind, body),
    )


def _kind(capability: str) -> str:
    """What a model of this capability makes; the operations that do not say so are a video's."""
    made = capability.rpartition("-to-")[2]
    return made if made in {"image", "music", "3d"} else "video"


def _first_of(catalogue: Catalogue, kind: str) -> str:
    """The name of the first model of the kind.

    Raises:
        Invalid: there is none.
    """
    for (contract, name), model in catalogue.models.items():
        if contract == "lemondata" and _kind(model.capability) == kind:
            return name
    raise Invalid(f"no model makes {kind}", param="model")


def _keys(asked: Asked, kind: str, body: _Body) -> tuple[Idempotency, ...]:
    """The key in ``Idempotency-Key``, if there is one: each route has its own (chosen).

    Raises:
        Invalid: it is not 1 to 255 characters.
    """
    key = asked.headers.get("Idempotency-Key")
    if key is None:
        return ()
    if not 1 <= len(key) <= KEY_MAX_CHARS:
        raise Invalid(f"Idempotency-Key must be 1 to {KEY_MAX_CHARS} characters", param="Idempotency-Key")
    return (Idempotency(f"lemondata create {kind}", key, fingerprint(body), KEY_WINDOW_US),)


def _required(given: str | None, field: str) -> None:
    if not given:
        raise Invalid(f"{field} is required", param=field)


ADDRESS_MAX_CHARS = 2048
_INLINE = re.compile(r"data:[a-z]+/[a-z0-9.+-]+;base64,[A-Za-z0-9+/]+={0,2}")


def _address(text: str | None, field: str, *, inline: bool = False) -> None:
    """Let pass an http or https address without credentials, or, *inline*, what a data URL holds.

    Raises:
        Invalid: it is neither.
    """
    if text is None or (inline and _INLINE.fullmatch(text)):
        return
    if len(text) > ADDRESS_MAX_CHARS:
        raise Invalid(f"{field} is longer than {ADDRESS_MAX_CHARS} characters", param=field)
    url_in(text, field)
