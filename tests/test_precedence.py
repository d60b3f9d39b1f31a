"""A create against which several things speak at once: the first reason that holds is the answer.

No vendor documents the order for its creates, so it is ours, and the same for all: who asks, how often, how much, what
it says, whether its key has been used, and what the catalogue knows. That of LemonData's cancel is with its tests.
"""

from typing import Any, NamedTuple

import pytest

from api.limits import Limits, Tier
from ledger.memory import MemoryEngine
from tests.http import compact
from tests.samples import SAMPLES
from tests.serving import Service, serving
from tests.worded import code_of

CREATES = {
    "lemondata": "/v1/videos/generations",
    "bytespike": "/v1/tasks/submit",
    "beatra": "/v1/music/text-to-music",
}


class Words(NamedTuple):
    """What a contract calls each reason."""

    no_key: str
    forbidden: str
    limited: str
    too_large: str
    invalid: tuple[int, str]
    key_used: str
    no_model: str


WORDS = {
    "lemondata": Words(
        "invalid_api_key",
        "access_denied",
        "rate_limit_exceeded",
        "payload_too_large",
        (400, "invalid_request"),
        "idempotency_key_reused",
        "model_not_found",
    ),
    "bytespike": Words(
        "invalid_api_key",
        "permission_denied",
        "rate_limit_exceeded",
        "request_too_large",
        (400, "invalid_param"),
        "duplicate_out_task_id",
        "model_not_found",
    ),
    "beatra": Words(
        "unauthorized",
        "forbidden",
        "rate_limited",
        "payload_too_large",
        (422, "invalid_request"),
        "idempotency_key_conflict",
        "unsupported_model",
    ),
}


class Asker(NamedTuple):
    """A client of one contract, whose create says what a test wants it to."""

    service: Service
    contract: str

    async def create(self, body: bytes, *, key: str | None, **headers: str) -> tuple[int, str]:
        path = f"/{self.contract}{CREATES[self.contract]}"
        told = [(name.replace("_", "-"), value) for name, value in headers.items()]
        reply = await self.service.ask("POST", path, key=key, body=body, headers=told)
        return reply.status, "" if reply.status < 300 else code_of(self.contract, reply)

    def body(self, **fields: Any) -> bytes:  # noqa: ANN401 - fields of the body
        return compact(SAMPLES[f"POST /{self.contract}{CREATES[self.contract]}"][0] | fields).encode()


@pytest.mark.parametrize("contract", CREATES)
async def test_the_first_reason_that_holds_is_the_answer(contract: str) -> None:
    words, too_large = WORDS[contract], b"[" * (2**20 + 1)
    async with serving(MemoryEngine(), limits=Limits(Tier(create=7), {})) as service:
        asker = Asker(service, contract)
        key = await service.key(contract)
        assert await asker.create(too_large, key=None) == (401, words.no_key)
        assert await asker.create(too_large, key=service.worker) == (403, words.forbidden)
        assert await asker.create(too_large, key=key) == (413, words.too_large)
        assert await asker.create(b"[", key=key, Idempotency_Key="k") == words.invalid
        unread = asker.body(model="nobody-knows", prompt=5, params=5)
        assert await asker.create(unread, key=key, Idempotency_Key="k") == words.invalid
        taken = await asker.create(asker.body(), key=key, Idempotency_Key="k")
        assert taken == (202 if contract == "beatra" else 200, "")
        other = asker.body(model="nobody-knows")
        assert await asker.create(other, key=key, Idempotency_Key="k") == (409, words.key_used)
        fresh = asker.body(model="nobody-knows", **({"out_task_id": "new"} if contract == "bytespike" else {}))
        assert await asker.create(fresh, key=key, Idempotency_Key="new") == (400, words.no_model)
        assert await asker.create(asker.body(), key=key) != (429, words.limited)
        assert await asker.create(too_large, key=key) == (429, words.limited)
        assert await asker.create(too_large, key=None) == (401, words.no_key)
