"""Bodies that are good in every field, for every route that reads one."""

from typing import Any

from tests.builders import ACCOUNT
from tests.http import MODELS

SAMPLES: dict[str, list[dict[str, Any]]] = {
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
    "POST /beatra/v1/tasks/{id}/cancel": [{"reason": "changed my mind"}],
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
    "POST /ledger/v1/keys": [{"account": ACCOUNT, "contract": "lemondata", "role": "client"}],
    "POST /ledger/v1/keys/{id}/rotate": [{"overlap_seconds": 60}],
}
"""For every route that reads a body, bodies that are good in every field."""
