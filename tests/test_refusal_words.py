"""Every refusal that a client can meet, to the letter: status, words, order of the members.

Sources: the error pages of LemonData (docs.lemondata.cc), ByteSpike (docs.bytespike.ai) and beatra
(docs.stratizon.cn). What money has to say is told by the tests of the creates.
"""

from typing import Any

import pytest

from api.contracts import CONTRACTS
from api.contracts.shape import Refused
from api.refusals import (
    Broken,
    Forbidden,
    Invalid,
    MethodNotAllowed,
    RateLimited,
    RevokedKey,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnknownRoute,
    WrongKey,
)
from ledger.errors import (
    CancelUnsupported,
    InsufficientCredits,
    KeyReused,
    NotCancellable,
    Overloaded,
    Refusal,
    TaskNotFound,
    TooManyTasks,
    UnknownModel,
)
from tests.http import compact
from tests.test_contracts import reaching

WORDS: dict[str, dict[type[Refusal], tuple[int, dict[str, Any]]]] = {
    "lemondata": {
        Unauthenticated: (401, {"message": "Missing API key.", "type": "invalid_api_key", "code": "invalid_api_key"}),
        WrongKey: (401, {"message": "Invalid API key.", "type": "invalid_api_key", "code": "invalid_api_key"}),
        RevokedKey: (
            401,
            {"message": "This API key has been revoked.", "type": "expired_api_key", "code": "expired_api_key"},
        ),
        Forbidden: (
            403,
            {"message": "This API key cannot be used here.", "type": "access_denied", "code": "access_denied"},
        ),
        UnknownRoute: (404, {"message": "Unknown request URL.", "type": "invalid_request_error", "code": "not_found"}),
        MethodNotAllowed: (
            405,
            {
                "message": "Method not allowed for this URL.",
                "type": "invalid_request_error",
                "code": "method_not_allowed",
            },
        ),
        TooLarge: (
            413,
            {"message": "Request body is too large.", "type": "invalid_request_error", "code": "payload_too_large"},
        ),
        Invalid: (
            400,
            {
                "message": "Invalid request. it is wrong",
                "type": "invalid_request_error",
                "code": "invalid_request",
                "param": "a.b",
            },
        ),
        TaskNotFound: (
            404,
            {
                "message": "Task not found or no longer available.",
                "type": "invalid_request_error",
                "code": "async_task_not_found",
            },
        ),
        CancelUnsupported: (
            400,
            {
                "message": "This task does not support cancellation.",
                "type": "invalid_request_error",
                "code": "unsupported_task_cancel",
            },
        ),
        NotCancellable: (
            409,
            {
                "message": "Task can no longer be cancelled.",
                "type": "invalid_request_error",
                "code": "task_not_cancellable",
            },
        ),
        UnknownModel: (
            400,
            {
                "message": "The model does not exist.",
                "type": "invalid_request_error",
                "code": "model_not_found",
                "param": "model",
            },
        ),
        TooManyTasks: (
            429,
            {
                "message": "Too many tasks in flight. Please retry later.",
                "type": "rate_limit_exceeded",
                "code": "rate_limit_exceeded",
            },
        ),
        RateLimited: (
            429,
            {
                "message": "Rate limit exceeded. Please retry later.",
                "type": "rate_limit_exceeded",
                "code": "rate_limit_exceeded",
            },
        ),
        KeyReused: (
            409,
            {
                "message": "Idempotency key was used for another request.",
                "type": "invalid_request_error",
                "code": "idempotency_key_reused",
            },
        ),
        Overloaded: (
            503,
            {
                "message": "The service is busy. Please retry later.",
                "type": "server_error",
                "code": "internal_error",
                "retryable": True,
            },
        ),
        Unavailable: (
            503,
            {
                "message": "The service is temporarily unavailable. Please retry later.",
                "type": "server_error",
                "code": "internal_error",
                "retryable": True,
            },
        ),
        Broken: (
            500,
            {"message": "Internal server error.", "type": "server_error", "code": "internal_error", "retryable": True},
        ),
    },
    "bytespike": {
        Unauthenticated: (
            401,
            {"message": "Missing API key.", "type": "authentication_error", "code": "invalid_api_key", "param": None},
        ),
        WrongKey: (
            401,
            {"message": "Invalid API key.", "type": "authentication_error", "code": "invalid_api_key", "param": None},
        ),
        RevokedKey: (
            401,
            {
                "message": "This API key has been revoked.",
                "type": "authentication_error",
                "code": "invalid_api_key",
                "param": None,
            },
        ),
        Forbidden: (
            403,
            {
                "message": "This API key cannot be used here.",
                "type": "permission_error",
                "code": "permission_denied",
                "param": None,
            },
        ),
        UnknownRoute: (
            404,
            {"message": "No such route.", "type": "not_found_error", "code": "not_found", "param": None},
        ),
        MethodNotAllowed: (
            405,
            {
                "message": "Method not allowed.",
                "type": "invalid_request_error",
                "code": "method_not_allowed",
                "param": None,
            },
        ),
        TooLarge: (
            413,
            {
                "message": "Task bodies are capped at 1 MiB.",
                "type": "request_too_large",
                "code": "request_too_large",
                "param": None,
            },
        ),
        Invalid: (
            400,
            {"message": "it is wrong", "type": "invalid_request_error", "code": "invalid_param", "param": "a.b"},
        ),
        TaskNotFound: (
            404,
            {"message": "No task matches.", "type": "not_found_error", "code": "task_not_found", "param": None},
        ),
        UnknownModel: (
            400,
            {"message": "Unknown model.", "type": "invalid_request_error", "code": "model_not_found", "param": "model"},
        ),
        TooManyTasks: (
            429,
            {
                "message": "Too many tasks in flight.",
                "type": "rate_limit_error",
                "code": "concurrency_limit",
                "param": None,
            },
        ),
        RateLimited: (
            429,
            {
                "message": "Rate limit exceeded.",
                "type": "rate_limit_error",
                "code": "rate_limit_exceeded",
                "param": None,
            },
        ),
        KeyReused: (
            409,
            {
                "message": "This out_task_id was used for another request.",
                "type": "invalid_request_error",
                "code": "duplicate_out_task_id",
                "param": "out_task_id",
            },
        ),
        Overloaded: (
            503,
            {
                "message": "The service is busy; retry with backoff.",
                "type": "api_error",
                "code": "internal_error",
                "param": None,
            },
        ),
        Unavailable: (
            503,
            {
                "message": "The service is temporarily unavailable; retry with backoff.",
                "type": "api_error",
                "code": "internal_error",
                "param": None,
            },
        ),
        Broken: (500, {"message": "Internal error.", "type": "api_error", "code": "internal_error", "param": None}),
    },
    "beatra": {
        Unauthenticated: (
            401,
            {
                "code": "unauthorized",
                "message": "Authorization header is missing.",
                "retryable": False,
                "request_id": "req_1",
            },
        ),
        WrongKey: (
            401,
            {
                "code": "invalid_api_key",
                "message": "The API key is not valid.",
                "retryable": False,
                "request_id": "req_1",
            },
        ),
        RevokedKey: (
            401,
            {
                "code": "invalid_api_key",
                "message": "The API key has been revoked.",
                "retryable": False,
                "request_id": "req_1",
            },
        ),
        Forbidden: (
            403,
            {
                "code": "forbidden",
                "message": "The API key cannot be used here.",
                "retryable": False,
                "request_id": "req_1",
            },
        ),
        UnknownRoute: (
            404,
            {"code": "not_found", "message": "No such route.", "retryable": False, "request_id": "req_1"},
        ),
        MethodNotAllowed: (
            405,
            {"code": "method_not_allowed", "message": "Method not allowed.", "retryable": False, "request_id": "req_1"},
        ),
        TooLarge: (
            413,
            {
                "code": "payload_too_large",
                "message": "The request body is too large.",
                "retryable": False,
                "request_id": "req_1",
            },
        ),
        Invalid: (
            422,
            {
                "code": "invalid_request",
                "message": "it is wrong",
                "retryable": False,
                "request_id": "req_1",
                "param": "/a/b",
                "details": {"errors": [{"message": "it is wrong"}]},
            },
        ),
        TaskNotFound: (
            404,
            {"code": "task_not_found", "message": "No such task.", "retryable": False, "request_id": "req_1"},
        ),
        UnknownModel: (
            400,
            {
                "code": "unsupported_model",
                "message": "The model is not supported.",
                "retryable": False,
                "request_id": "req_1",
                "param": "/model",
            },
        ),
        TooManyTasks: (
            429,
            {"code": "rate_limited", "message": "Too many tasks in flight.", "retryable": True, "request_id": "req_1"},
        ),
        RateLimited: (
            429,
            {"code": "rate_limited", "message": "Too many requests.", "retryable": True, "request_id": "req_1"},
        ),
        KeyReused: (
            409,
            {
                "code": "idempotency_key_conflict",
                "message": "The Idempotency-Key was used with another body.",
                "retryable": False,
                "request_id": "req_1",
            },
        ),
        Overloaded: (
            503,
            {"code": "internal_error", "message": "The service is busy.", "retryable": True, "request_id": "req_1"},
        ),
        Unavailable: (
            503,
            {
                "code": "internal_error",
                "message": "The service is temporarily unavailable.",
                "retryable": True,
                "request_id": "req_1",
            },
        ),
        Broken: (
            500,
            {"code": "internal_error", "message": "Internal error.", "retryable": True, "request_id": "req_1"},
        ),
    },
}
ROWS = [
    pytest.param(contract, kind, id=f"{contract} {kind.__name__}") for contract in WORDS for kind in WORDS[contract]
]


@pytest.mark.parametrize("contract", WORDS)
def test_every_refusal_has_its_row(contract: str) -> None:
    assert set(WORDS[contract]) == set(reaching(contract)) - {InsufficientCredits}


@pytest.mark.parametrize(("contract", "kind"), ROWS)
def test_a_refusal_is_worded_to_the_letter(contract: str, kind: type[Refusal]) -> None:
    status, error = WORDS[contract][kind]
    answer = CONTRACTS[contract].refuse(reaching(contract)[kind], Refused("GET", "req_1"))
    assert (answer.status, answer.body.decode()) == (status, compact({"error": error}))
    assert answer.content_type == "application/json"
