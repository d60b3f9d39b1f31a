"""beatra's creates: four routes, each of one capability; the model's price for it is charged at once.

Source: the beatra documentation (docs.stratizon.cn). It counts the references of an image and does not name their
field, and it gives no lengths: those, and the defaults, are chosen.

================================== ========================== ===========================================
route                              capability                 price
================================== ========================== ===========================================
/v1/images/generations             text_to_image              of the quality, for each of ``n`` images
/v1/images/image-to-image          image_to_image             of the quality, for each of ``n`` images
/v1/music/text-to-music            text_to_music              flat
/v1/music/reference-audio-to-music reference_audio_to_music   flat
================================== ========================== ===========================================
"""

from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from api.bodies import fingerprint, read_json, url_in
from api.contracts.beatra_envelope import view
from api.contracts.shape import Answer, Asked, Idempotency, Order, Submit, Told, json_answer
from api.refusals import Invalid
from ledger.catalogue import Catalogue, Model
from ledger.errors import Refusal
from ledger.times import US_PER_DAY

CONTRACT_NAME = "beatra"
KEY_WINDOW_US = US_PER_DAY
KEY_MAX_CHARS = 255
AUTO = "auto"

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=5000)]  # chosen
Title = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]  # chosen
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Url = Annotated[str, msgspec.Meta(max_length=2048)]
Count = Annotated[int, msgspec.Meta(ge=1, le=4)]
References = Annotated[list[Url], msgspec.Meta(min_length=1, max_length=16)]
Quality = Literal["standard", "hd"]
AspectRatio = Literal["auto", "1:1", "16:9", "9:16", "4:3", "3:4", "2:1"]


class UnsupportedCapability(Refusal):
    """The catalogue has the model, but it makes something else than this route is for."""


class UnsupportedOption(Refusal):
    """The model does not take *fields*."""

    def __init__(self, fields: tuple[str, ...]) -> None:
        super().__init__(f"not supported by the model: {', '.join(fields)}")
        self.fields = fields


class _Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    prompt: Text
    model: Name = AUTO  # chosen: the model may be left out
    metadata: dict[str, str] = {}
    callback_url: Url | None = None


class ImageBody(_Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    quality: Quality = "standard"
    aspect_ratio: AspectRatio | None = None
    n: Count = 1


class ImageToImageBody(ImageBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    references: References


class ModelOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Each family's own options, handed on as they are."""

    suno: dict[str, Any] | None = None
    minimax: dict[str, Any] | None = None


class MusicBody(_Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    title: Title | None = None
    lyrics: Text | None = None
    instrumental: bool = False
    model_options: ModelOptions = ModelOptions()


class ReferenceAudioBody(MusicBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reference_audio: Url


class _Priced(NamedTuple):
    """The model asked for, what it stands for in this capability, and the price."""

    model: Model
    stands_for: Model
    micros: int


def keyed(asked: Asked, path: str, *parts: object) -> Idempotency | None:
    """The request's ``Idempotency-Key``, whose scope is tenant, method and path (chosen).

    Raises:
        Invalid: the key is not 1 to 255 characters.
    """
    key = asked.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not 1 <= len(key) <= KEY_MAX_CHARS:
        raise Invalid(f"Idempotency-Key must be 1 to {KEY_MAX_CHARS} characters.", param="/Idempotency-Key")
    operation = f"{CONTRACT_NAME} POST {path}"
    return Idempotency(operation=operation, key=key, fingerprint=fingerprint(*parts), window_us=KEY_WINDOW_US)


def replayed(told: Told) -> dict[str, str] | None:
    """The headers that tell a repeated answer from a first one."""
    return {"Idempotent-Replayed": "true"} if told.replayed else None


def _image(path: str, capability: str, kind: type[ImageBody]) -> Submit:
    def order(catalogue: Catalogue, asked: Asked) -> Order:
        body = read_json(asked.body, kind)
        wanted: dict[str, Any] = {
            "prompt": body.prompt,
            "quality": body.quality,
            "aspect_ratio": _aspect_ratio(body),
            "n": body.n,
        }
        if isinstance(body, ImageToImageBody):
            wanted["references"] = [url_in(url, f"references.{at}") for at, url in enumerate(body.references)]
        priced = _priced(catalogue, body.model, capability=capability, quality=body.quality)
        if priced is not None:
            priced = priced._replace(micros=body.n * priced.micros)
        return _order(asked, path, body, capability, wanted=wanted, priced=priced)

    return Submit("POST", path, order, _created)


def _music(path: str, capability: str, kind: type[MusicBody]) -> Submit:
    def order(catalogue: Catalogue, asked: Asked) -> Order:
        body = read_json(asked.body, kind)
        options = {
            name: value for name, value in msgspec.structs.asdict(body.model_options).items() if value is not None
        }
        asked_for: dict[str, Any] = {
            "prompt": body.prompt,
            "title": body.title,
            "lyrics": body.lyrics,
            "instrumental": body.instrumental,
            "model_options": options,
        }
        if isinstance(body, ReferenceAudioBody):
            asked_for["reference_audio"] = url_in(body.reference_audio, "reference_audio")
        priced = _priced(catalogue, body.model, capability=capability)
        foreign = [name for name in options if priced is not None and name != priced.stands_for.provider]
        if foreign:
            raise UnsupportedOption(tuple(f"model_options.{name}" for name in foreign))
        wanted = {name: value for name, value in asked_for.items() if value}
        return _order(asked, path, body, capability, wanted=wanted, priced=priced)

    return Submit("POST", path, order, _created)


def _aspect_ratio(body: ImageBody) -> str:
    """As asked, else ``auto``, and 1:1 where that is not to be had (chosen).

    Raises:
        Invalid: ``auto`` with another quality than standard.
    """
    if body.quality == "standard":
        return body.aspect_ratio or AUTO
    if body.aspect_ratio == AUTO:
        raise Invalid("aspect_ratio auto needs quality standard", param="aspect_ratio")
    return body.aspect_ratio or "1:1"


def _priced(catalogue: Catalogue, name: str, *, capability: str, quality: str | None = None) -> _Priced | None:
    """What the catalogue says of the model; None: it has no such model.

    Raises:
        UnsupportedCapability: the model makes something else.
        UnsupportedOption: the model does not make it in this quality.
    """
    model = catalogue.find(CONTRACT_NAME, name)
    if model is None:
        return None
    stands_for = catalogue.find(CONTRACT_NAME, model.resolves_by.get(capability, name))
    assert stands_for is not None, "checked when the catalogue was read"
    if capability not in stands_for.capabilities:
        raise UnsupportedCapability(name)
    micros = stands_for.price_of(capability if quality is None else f"{capability}/{quality}")
    if micros is None:
        raise UnsupportedOption(("quality",))
    return _Priced(model, stands_for, micros)


def _order(  # noqa: PLR0913 - what the routes differ in
    asked: Asked, path: str, body: _Body, capability: str, *, wanted: dict[str, Any], priced: _Priced | None
) -> Order:
    """The order; without a price it is refused later on, but for what was taken before its model left the catalogue."""
    key = keyed(asked, path, msgspec.json.decode(asked.body))
    stands_for = None if priced is None or priced.stands_for is priced.model else priced.stands_for.name
    return Order(
        model=body.model,
        resolved_model=stands_for,
        input=wanted,
        metadata=dict(body.metadata),
        capability=capability,
        estimated_micros=None if priced is None else priced.micros,
        callback_url=url_in(body.callback_url, "callback_url"),
        keys=() if key is None else (key,),
    )


def _created(_: Asked, told: Told) -> Answer:
    """The whole envelope (chosen: one page of the documentation shows it, another only the id)."""
    return json_answer(202, view(told.task), replayed(told))


CREATES = (
    _image("/v1/images/generations", "text_to_image", ImageBody),
    _image("/v1/images/image-to-image", "image_to_image", ImageToImageBody),
    _music("/v1/music/text-to-music", "text_to_music", MusicBody),
    _music("/v1/music/reference-audio-to-music", "reference_audio_to_music", ReferenceAudioBody),
)
