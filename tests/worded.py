"""Refusals as each contract words them: a reader per contract, that takes nothing which is not of its shape."""

from collections.abc import Callable
from typing import Annotated

import msgspec

from tests.wire import Reply

Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Lemondata(msgspec.Struct, forbid_unknown_fields=True):
    message: Text
    type: Text
    code: Text
    param: Text | None = None
    retryable: bool = False


class _Bytespike(msgspec.Struct, forbid_unknown_fields=True):
    message: Text
    type: Text
    code: Text
    param: Text | None


class _Beatra(msgspec.Struct, forbid_unknown_fields=True):
    code: Text
    message: Text
    retryable: bool
    request_id: Text
    param: Annotated[str, msgspec.Meta(pattern="^/")] | None = None
    details: dict[str, list[dict[str, str] | str]] = {}


class _Problem(msgspec.Struct):
    """RFC 9457, with further members."""

    type: Annotated[str, msgspec.Meta(pattern="^urn:task-ledger:problem:[a-z-]+$")]
    title: Text
    status: int
    detail: Text
    code: Annotated[str, msgspec.Meta(pattern="^[a-z_]+$")]
    request_id: Text


def _lemondata(reply: Reply) -> str:
    assert reply.headers["content-type"] == "application/json"
    error = msgspec.json.decode(reply.body, type=dict[str, _Lemondata])
    assert list(error) == ["error"]
    return error["error"].code


def _bytespike(reply: Reply) -> str:
    assert reply.headers["content-type"] == "application/json"
    error = msgspec.json.decode(reply.body, type=dict[str, _Bytespike])
    assert list(error) == ["error"]
    return error["error"].code


def _chunkr(reply: Reply) -> str:
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    text = reply.body.decode()
    assert text
    assert not text.startswith(("{", "<", "4", "5"))
    return text


def _beatra(reply: Reply) -> str:
    assert reply.headers["content-type"] == "application/json"
    error = msgspec.json.decode(reply.body, type=dict[str, _Beatra])
    assert list(error) == ["error"]
    assert error["error"].request_id == reply.headers["x-request-id"]
    return error["error"].code


def _native(reply: Reply) -> str:
    assert reply.headers["content-type"] == "application/problem+json"
    problem = msgspec.json.decode(reply.body, type=_Problem)
    assert problem.request_id == reply.headers["x-request-id"]
    assert problem.status == reply.status
    assert problem.type == f"urn:task-ledger:problem:{problem.code.replace('_', '-')}"
    return problem.code


_READERS: dict[str, Callable[[Reply], str]] = {
    "lemondata": _lemondata,
    "bytespike": _bytespike,
    "chunkr": _chunkr,
    "beatra": _beatra,
    "ledger": _native,
}


def code_of(contract: str, reply: Reply) -> str:
    """The code of a refusal, or its text where the contract has no codes; it has the contract's very shape."""
    return _READERS[contract](reply)
