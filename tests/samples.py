"""Bodies that are good in every field, for every route that reads one."""

from typing import Any

from tests.builders import ACCOUNT
from tests.http import MODELS

CONFIGURED: dict[str, Any] = {
    "expires_in": 3600,
    "high_resolution": True,
    "ocr_strategy": "Auto",
    "segmentation_strategy": "Page",
    "error_handling": "Continue",
    "chunk_processing": {"target_length": 256, "tokenizer": {"Enum": "Cl100kBase"}},
    "segment_processing": {
        "Table": {"format": "Html", "strategy": "LLM", "description": True},
        "picture": {"crop_image": "All", "embed_sources": ["Content"]},
    },
    "llm_processing": {"model_id": "m1", "fallback_strategy": {"Model": "m2"}, "max_completion_tokens": 100},
    "pipeline": "Azure",
}
CHUNKR_BASES = [base + word for base in ("", "/api/v1") for word in ("/task", "/tasks")]

SAMPLES: dict[str, list[dict[str, Any]]] = {
    "POST /lemondata/v1/videos/generations": [
        {
            "model": MODELS["lemondata"],
            "prompt": "a cat",
            "operation": "reference-to-video",
            "image_url": "https://example.com/1.png",
            "image": "data:image/png;base64,aGk=",
            "start_image": "https://example.com/2.png",
            "end_image": "https://example.com/3.png",
            "reference_images": ["https://example.com/4.png"],
            "video_url": "https://example.com/1.mp4",
            "audio_url": "https://example.com/1.mp3",
            "duration": 4,
            "aspect_ratio": "16:9",
            "resolution": "1080p",
            "fps": 24,
            "negative_prompt": "a dog",
            "seed": 7,
            "cfg_scale": 7.5,
            "motion_strength": 0.5,
            "output_audio": True,
            "user": "u1",
        },
        {"prompt": "a cat", "outputAudio": False},
    ],
    "POST /lemondata/v1/images/generations": [
        {
            "model": "gpt-image-1",
            "prompt": "a cat",
            "n": 2,
            "size": "1024x1024",
            "aspect_ratio": "1:1",
            "quality": "high",
            "style": "vivid",
            "background": "opaque",
            "negative_prompt": "a dog",
            "seed": 7,
            "response_format": "url",
            "user": "u1",
        }
    ],
    "POST /lemondata/v1/music/generations": [
        {
            "model": "suno-5.5",
            "prompt": "a song of rain",
            "lyrics": "It rains",
            "title": "Rain",
            "style": "jazz",
            "instrumental": False,
            "user": "u1",
        }
    ],
    "POST /lemondata/v1/3d/generations": [
        {
            "model": "tripo3d-v2.5",
            "prompt": "a cat",
            "image_url": "https://example.com/1.png",
            "negative_prompt": "a dog",
            "seed": 7,
            "user": "u1",
        }
    ],
    "POST /bytespike/v1/tasks/submit": [
        {
            "model": MODELS["bytespike"],
            "params": {"prompt": "a cat", "shots": [{"seconds": 4}]},
            "out_task_id": "order-7",
            "callback_url": "https://example.com/hook?x=1",
            "stream": False,
        }
    ],
    "POST /bytespike/v1/tasks/query": [{"task_id": "-"}, {"out_task_id": "-"}],
    "POST /bytespike/v1/tasks/cancel": [{"task_id": "-"}, {"out_task_id": "-"}],
    "POST /bytespike/v1/tasks/cancel/{id}": [{}],
    "POST /bytespike/api/v1/me/webhooks": [
        {
            "url": "https://example.com/hook?x=1",
            "events": ["task.completed", "task.failed"],
            "secret": "0123456789abcdef0123456789abcdef",
        }
    ],
    "PUT /bytespike/api/v1/me/webhooks/{id}": [
        {
            "url": "https://example.com/hook?x=2",
            "events": ["task.cancelled"],
            "enabled": False,
            "secret": "0123456789abcdef0123456789abcdee",
        }
    ],
    "POST /beatra/v1/images/generations": [
        {
            "model": "auto",
            "prompt": "a lighthouse at dusk",
            "quality": "hd",
            "aspect_ratio": "16:9",
            "n": 2,
            "metadata": {"order": "4711"},
            "callback_url": "https://example.com/hook?x=1",
        }
    ],
    "POST /beatra/v1/images/image-to-image": [
        {
            "model": "beatra-image-1",
            "prompt": "the same, in watercolour",
            "references": ["https://example.com/1.png"],
            "quality": "standard",
            "aspect_ratio": "auto",
            "n": 4,
            "metadata": {"order": "4711"},
            "callback_url": "https://example.com/hook?x=1",
        }
    ],
    "POST /beatra/v1/music/text-to-music": [
        {
            "model": "suno-5.5",
            "prompt": "dream pop",
            "title": "Open It Up",
            "lyrics": "la la la",
            "instrumental": False,
            "model_options": {"suno": {}},
            "metadata": {"order": "4711"},
            "callback_url": "https://example.com/hook?x=1",
        }
    ],
    "POST /beatra/v1/music/reference-audio-to-music": [
        {
            "model": "minimax-music-2.6",
            "prompt": "dream pop",
            "reference_audio": "https://example.com/1.mp3",
            "instrumental": True,
            "model_options": {"minimax": {}},
            "metadata": {"order": "4711"},
            "callback_url": "https://example.com/hook?x=1",
        }
    ],
    "POST /beatra/v1/tasks/{id}/cancel": [{"reason": "changed my mind"}],
    **{
        f"POST /chunkr{base}{end}": [{"file": "https://files.example.test/in.pdf", "file_name": "in.pdf", **CONFIGURED}]
        for base in CHUNKR_BASES
        for end in ("", "/parse")
    },
    **{f"PATCH /chunkr{base}/{{id}}{end}": [CONFIGURED] for base in CHUNKR_BASES for end in ("", "/parse")},
    "POST /ledger/v1/tasks": [
        {
            "account": ACCOUNT,
            "contract": "bytespike",
            "model": MODELS["bytespike"],
            "capability": "text-to-video",
            "input": {"prompt": "a cat", "shots": [{"seconds": 4}]},
            "metadata": {"order": "7"},
            "estimated_credits": "1.5",
            "estimated_seconds": 30,
            "out_task_id": "order-7",
            "callback_url": "https://example.com/hook?x=1",
            "expires_at": "2026-02-01T00:00:00Z",
        }
    ],
    "POST /ledger/v1/tasks/{id}/events": [
        {"type": "started", "worker": "w1", "provider_task_id": "p1", "event_id": "e1"},
        {"type": "progressed", "percent": 40, "stage": "render", "message": "on its way"},
        {
            "type": "completed",
            "output": {"assets": [{"kind": "video", "url": "https://example.com/v.mp4"}], "seed": 7},
            "usage": {
                "video_seconds": 8,
                "lines": [{"meter": "m", "quantity": "8", "unit": "s", "billed_amount_credits": "1.5"}],
            },
            "warnings": [{"code": "short", "message": "Shorter than asked.", "field": "seconds"}],
            "actual_credits": "1.25",
            "effective_at": "2026-01-02T03:04:05.5Z",
        },
        {"type": "failed", "code": "broke", "message": "It broke.", "retryable": False, "actual_credits": "0"},
        {"type": "cancelled", "actual_credits": "0"},
        {"type": "charged", "amount_credits": "0.5", "key": "c1", "reason": "rendered"},
        {"type": "refunded", "amount_credits": "0.5", "key": "r1", "reason": "sorry"},
    ],
    "POST /ledger/v1/tasks/{id}/cancel": [{"reason": "the customer called"}],
    "POST /ledger/v1/billing/breaks/{id}": [
        {"type": "explain", "reason": "a trial", "owner": "finance"},
        {"type": "resolve", "reason": "given back", "position": 1},
    ],
    "POST /ledger/v1/billing/reconciliation": [{}],
    "POST /ledger/v1/keys": [{"account": ACCOUNT, "contract": "lemondata", "role": "client"}],
    "POST /ledger/v1/keys/{id}/rotate": [{"overlap_seconds": 60}],
    "POST /ledger/v1/callbacks/{id}/resend": [{"reason": "the receiver was down"}],
    "POST /ledger/v1/accounts/{account}/callback-secret/rotate": [{"overlap_seconds": 60}],
    "PUT /ledger/v1/accounts/{account}/limit": [{"limit_credits": "10"}],
    "POST /ledger/v1/accounts/{account}/grants": [{"amount_credits": "0.5", "key": "g1", "reason": "sorry"}],
    "POST /ledger/v1/accounts/{account}/revocations": [
        {"grant": "g1", "amount_credits": "0.5", "key": "r1", "reason": "a slip"}
    ],
}
"""For every route that reads a body, bodies that are good in every field."""

STATEMENT = b"provider_task_id,amount,finished_at\np1,1.5,2026-01-02T03:04:05Z\n"
REPORTS = b"""{"task":"019ab1c2-7d04-78a5-9bcd-0123456789ab","type":"started","worker":"w1"}
{"task":"019ab1c2-7d04-78a5-9bcd-0123456789ab","type":"completed"}
"""
FILES: dict[str, tuple[str, str, bytes]] = {
    "POST /ledger/v1/events": ("", "application/x-ndjson", REPORTS),
    "POST /ledger/v1/billing/statements": ("?provider=volcengine", "text/csv", STATEMENT),
}
"""For every route that takes a file: the query that goes with it, its content type, and one that is good."""
