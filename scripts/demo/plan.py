"""What the demo worker reports of a task: pure, and the same for the same dice.

No model runs anywhere; what a provider would deliver is made up here, so that every field of every contract has
something plausible to show.
"""

import re
from collections.abc import Callable, Sequence
from enum import Enum, auto
from random import Random
from typing import Any, NamedTuple, TypeAlias

import msgspec

Report: TypeAlias = dict[str, Any]
"""The body of one ``POST .../events``."""

DONE_PERCENT = 100
COUNT_MAX = 4
PAGE_POINTS = (612.0, 792.0)
"""Width and height of US letter."""


class Progress(msgspec.Struct, frozen=True):
    percent: int | None = None


class Billing(msgspec.Struct, frozen=True):
    estimated_credits: str


class View(msgspec.Struct, frozen=True, kw_only=True):
    """The native task, as far as a worker reads it."""

    id: str
    contract: str
    capability: str
    model: str
    status: str
    worker: str | None
    cancel_requested: bool
    progress: Progress
    billing: Billing
    input: dict[str, Any]
    late: bool = False
    """The report that this answers came after the task's outcome."""


class Next(Enum):
    """What an answer tells the worker to do."""

    GO_ON = auto()
    CONFIRM = auto()
    """Stop, and say so: a cancel has been asked for."""
    LEAVE = auto()
    """Stop without a word: the task is over, or queued anew."""


def after(answer: View) -> Next:
    if answer.late or answer.status != "running":
        return Next.LEAVE
    return Next.CONFIRM if answer.cancel_requested else Next.GO_ON


def plan(task: View, *, worker: str, dice: Random, fail_share: float) -> list[Report]:
    """All that is reported of *task*, in order; of one that was begun before, what is left."""
    kind = KINDS[kind_of(task)]
    percents = [DONE_PERCENT * step // (len(kind.stages) + 1) for step in range(1, len(kind.stages) + 1)]
    stages: list[Report] = [
        {"type": "progressed", "percent": percent, "stage": stage, "message": message}
        for percent, (stage, message) in zip(percents, kind.stages, strict=True)
    ]
    end = _completed(task, kind, dice)
    if dice.random() < fail_share:
        stages = stages[: dice.randint(1, len(stages))]
        end = {"type": "failed", **dice.choice(FAILURES)}
    begun_percent = task.progress.percent or 0
    left = [stage for stage in stages if stage["percent"] > begun_percent]
    return [{"type": "started", "worker": worker, "provider_task_id": f"demo-{task.id}"}, *left, end]


def kind_of(task: View) -> str:
    """What the task makes: the last word of its capability that names something, as in ``image-to-video``."""
    words = re.findall(r"[a-z0-9]+", task.capability.lower())
    return next((WORDS[word] for word in reversed(words) if word in WORDS), "document")


class Kind(NamedTuple):
    """A sort of work: its stages, each with what the customer reads then, and what comes of it."""

    stages: Sequence[tuple[str, str]]
    asset: Callable[[Random], dict[str, Any]]
    """One asset, but for its address."""
    suffix: str
    meters: Callable[[int, Random], dict[str, int]]
    """Meters of this many assets; the first is the one that is billed."""


def _completed(task: View, kind: Kind, dice: Random) -> Report:
    count = _count(task)
    assets = [
        {**kind.asset(dice), "url": f"https://cdn.example.test/{task.id}/{number}.{kind.suffix}"}
        for number in range(1, count + 1)
    ]
    output: dict[str, Any] = {"assets": assets, **_beside(task, dice)}
    report: Report = {"type": "completed", "output": output}
    if task.contract == "beatra":
        meters = kind.meters(count, dice)
        line = {"meter": next(iter(meters)), "quantity": str(next(iter(meters.values()))), "unit": "unit"}
        billed = {"billed_amount_credits": task.billing.estimated_credits}
        report["usage"] = {**meters, "lines": [{**line, **billed}]}
    return report


def _count(task: View) -> int:
    """How many images were asked for, as ``n``; one of everything else."""
    count = task.input.get("n")
    return count if kind_of(task) == "image" and isinstance(count, int) and 1 <= count <= COUNT_MAX else 1


def _beside(task: View, dice: Random) -> dict[str, Any]:
    """What an output has beside its assets."""
    match kind_of(task):
        case "audio":
            return {"title": "Demo song", "lyrics": "La la la, the ledger balances today"}
        case "document":
            return _parsed(task, dice)
        case _:
            return {}


def _parsed(task: View, dice: Random) -> dict[str, Any]:
    """A parsed document: one chunk a page."""
    file = task.input.get("file")
    from_url = file.partition("?")[0].rpartition("/")[2] if isinstance(file, str) and "://" in file else ""
    pages = dice.randint(1, 3)
    return {
        "chunks": [_chunk(page, dice) for page in range(1, pages + 1)],
        "file_name": task.input.get("file_name") or from_url or "document.pdf",
        "page_count": pages,
        "pdf_url": f"https://cdn.example.test/{task.id}/document.pdf",
    }


def _chunk(page: int, dice: Random) -> dict[str, Any]:
    text = f"What stands on page {page}."
    length = len(text.split())
    segment = _segment(page, text, dice)
    return {"chunk_id": f"chunk-{page}", "chunk_length": length, "content": text, "embed": text, "segments": [segment]}


def _segment(page: int, text: str, dice: Random) -> dict[str, Any]:
    """One line of text near the top of a page, with all that Chunkr's clients cannot do without."""
    width, height = PAGE_POINTS
    bbox = {"left": 72.0, "top": 72.0, "width": width - 144.0, "height": 14.0}
    confidence = round(dice.uniform(0.8, 1), 3)
    return {
        "segment_id": f"segment-{page}",
        "segment_type": "Text",
        "page_number": page,
        "page_width": width,
        "page_height": height,
        "bbox": bbox,
        "confidence": confidence,
        "content": text,
        "text": text,
        "html": f"<p>{text}</p>",
        "markdown": text,
        "ocr": [{"bbox": bbox, "text": text, "confidence": confidence}],
    }


def _video(dice: Random) -> dict[str, Any]:
    width, height = dice.choice(((1280, 720), (1920, 1080), (720, 1280)))
    return {"kind": "video", "width": width, "height": height, "duration_seconds": dice.choice((5, 8, 10))}


def _image(dice: Random) -> dict[str, Any]:
    width, height = dice.choice(((1024, 1024), (1536, 1024)))
    return {"kind": "image", "width": width, "height": height, "revised_prompt": "The prompt, in finer words"}


def _audio(dice: Random) -> dict[str, Any]:
    return {"kind": "audio", "duration_seconds": dice.randint(60, 240)}


KINDS = {
    "video": Kind(
        stages=(
            ("prepare", "Reading the prompt"),
            ("render", "Rendering frames"),
            ("render", "Rendering more frames"),
            ("encode", "Encoding the video"),
        ),
        asset=_video,
        suffix="mp4",
        meters=lambda count, dice: {"video_seconds": count * dice.choice((5, 8, 10))},
    ),
    "image": Kind(
        stages=(
            ("prepare", "Reading the prompt"),
            ("generate", "Generating the image"),
            ("upscale", "Upscaling the image"),
        ),
        asset=_image,
        suffix="png",
        meters=lambda count, _: {"image_count": count, "image_pixels": count * 1024 * 1024},
    ),
    "audio": Kind(
        stages=(
            ("compose", "Composing"),
            ("sing", "Recording the voice"),
            ("mix", "Mixing the tracks"),
        ),
        asset=_audio,
        suffix="mp3",
        meters=lambda count, dice: {"audio_seconds": count * dice.randint(60, 240)},
    ),
    "model3d": Kind(
        stages=(
            ("shape", "Building the mesh"),
            ("texture", "Painting the texture"),
            ("export", "Writing the files"),
        ),
        asset=lambda _: {"kind": "model3d", "format": "glb"},
        suffix="glb",
        meters=lambda count, _: {"image_count": count},
    ),
    "document": Kind(
        stages=(
            ("convert", "Converting pages to images"),
            ("analyse", "Running Chunkr analysis"),
            ("chunk", "Chunking"),
            ("finish", "Finishing up"),
        ),
        asset=lambda _: {"kind": "document"},
        suffix="pdf",
        meters=lambda count, dice: {"characters": count * dice.randint(500, 5000)},
    ),
}

WORDS = {
    "video": "video",
    "image": "image",
    "audio": "audio",
    "music": "audio",
    "song": "audio",
    "speech": "audio",
    "3d": "model3d",
    "model3d": "model3d",
    "document": "document",
    "parse": "document",
}

FAILURES: list[dict[str, Any]] = [
    {"code": "provider_unavailable", "message": "The provider did not answer in time.", "retryable": True},
    {"code": "content_policy", "message": "The prompt was refused by the provider's policy.", "retryable": False},
    {"code": "generation_failed", "message": "The model returned nothing usable.", "retryable": True},
]
