"""Reading a request: its id, its query, its body, and the URL under which the client has reached the contract."""

import re
from collections import Counter
from collections.abc import Mapping
from urllib.parse import unquote

from aiohttp import HttpVersion11, web

from api.deps import Deps
from api.refusals import Invalid, TooLarge

_NO_QUERY: Mapping[str, str] = {}
_REQUEST_ID = re.compile(r"[!-~]{1,128}")


def request_id(deps: Deps, headers: Mapping[str, str], now_us: int) -> str:
    """The client's own, if it is 1 to 128 visible characters; else a new one."""
    given = headers.get("X-Request-Id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return deps.request_ids.next(now_us)


def base_url(request: web.BaseRequest, prefix: str) -> str:
    """Scheme, host and prefix as the client has them in front of the contract's paths, for links in answers.

    Raises:
        Invalid: its Host header is no host.
    """
    host = request.host
    if not host.isascii():
        raise Invalid("the Host header is no host", param="Host")
    return f"{request.scheme}://{host}{prefix}"


def query(request: web.BaseRequest, *, takes_odd: bool) -> Mapping[str, str]:
    """Its parameters. Of one that is named twice the first counts, and what is not UTF-8 is replaced, if *takes_odd*.

    Raises:
        Invalid: it does not, and there is such a one: which of two is meant, or what is, is not guessed.
    """
    raw = request.rel_url.raw_query_string
    if not raw:
        return _NO_QUERY
    told = request.rel_url.query
    if not takes_odd:
        for pair in raw.split("&") if "%" in raw else ():
            try:
                unquote(pair, errors="strict")
            except UnicodeDecodeError:
                name = unquote(pair.partition("=")[0])
                raise Invalid(f"query parameter {name} is not UTF-8", param=name or None) from None
        for name, count in Counter(name for name, _ in told.items()).items():
            if count > 1:
                raise Invalid(f"query parameter {name} is given {count} times", param=name or None)
    return told


async def body(request: web.BaseRequest, limit_bytes: int) -> bytes:
    """The whole body.

    Raises:
        TooLarge: it is longer than *limit_bytes*.
        Invalid: it is compressed, or cannot be read.
    """
    if not request.body_exists:
        return b""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise Invalid("a compressed body is not taken", param="Content-Encoding")
    try:
        whole = await _whole(request, limit_bytes)
    except (web.HTTPException, web.RequestPayloadError, ConnectionError) as error:
        raise Invalid(f"the body cannot be read: {error}") from None
    if len(whole) > limit_bytes:
        raise TooLarge(limit_bytes)
    return whole


async def _whole(request: web.BaseRequest, limit_bytes: int) -> bytes:
    if request.content.is_eof():  # most come in one piece with their head: nobody waits, nothing needs to be awaited
        return request.content.read_nowait()
    if (request.content_length or 0) > limit_bytes:
        raise TooLarge(limit_bytes)
    await _invite(request)
    return await _read(request, limit_bytes)


async def _read(request: web.BaseRequest, limit_bytes: int) -> bytes:
    """All that comes; `request.read` takes no more than a MiB, whatever the route takes."""
    whole = bytearray()
    while chunk := await request.content.readany():
        whole += chunk
        if len(whole) > limit_bytes:
            raise TooLarge(limit_bytes)
    return bytes(whole)


async def _invite(request: web.BaseRequest) -> None:
    """Ask for the body if the client waits to be asked; pass over what else it expects (RFC 9110, 10.1.1)."""
    if request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun
