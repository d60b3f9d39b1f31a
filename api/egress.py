"""Where callbacks may go: rules for an address as it is written, and a guard at the very socket that would be dialled.

Customers name the addresses, so none may lead inside. A name can be written in many ways and can be answered otherwise
at each look-up, and an address that is written in numbers is never looked up; so what counts is checked where a
connection is made, with the address that it is made to. The text is checked as well, when it is given and when it is
used, to refuse what can never be right. Alternative beaten: a guard in the resolver, which numbers pass by.

No connection is ever used twice, so none leads from one tenant to the next. Of an answer nothing is kept but its
status.
"""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, StreamReader, TCPConnector
from aiohttp.client_exceptions import ClientConnectorCertificateError, ClientConnectorDNSError, ClientConnectorSSLError
from aiohttp.resolver import AsyncResolver

from api.refusals import Invalid

READ_MAX_BYTES = 64 * 1024
"""Of an answer, to be polite; then it is hung up."""
URL_MAX_CHARS = 2048
PORTS = (443, 8443)

Address: TypeAlias = IPv4Address | IPv6Address

NEVER = tuple(
    map(
        ip_network,
        (
            "192.0.0.0/24",  # of special use; a cloud answers its machines there
            "168.63.129.16/32",  # another cloud does so there, on an address of its own in the internet
            "3fff::/20",  # documentation
            "64:ff9b::/96",  # NAT64: an IPv4 address inside
            "64:ff9b:1::/48",  # the same, of local use
            "2002::/16",  # 6to4: the same
            "2001::/32",  # Teredo: the same
            "::/96",  # IPv4-compatible, out of use
            "fec0::/10",  # site-local, out of use
            "192.88.99.0/24",  # 6to4 relays
        ),
    )
)
"""What `ipaddress` calls global, wholly or in part, and is not to be trusted (CPython 3.11)."""


class Egress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where callbacks may go. The defaults are for receivers in the internet."""

    http: bool = False
    """Whether addresses without TLS are taken, for receivers on the premises."""
    ports: tuple[int, ...] = PORTS
    """The ports that may be dialled; none: all."""
    networks: tuple[str, ...] = ()
    """Ranges that may be dialled although they are not public."""

    def __post_init__(self) -> None:
        for network in self.networks:
            ip_network(network)  # a ValueError says which is none

    def allows(self, address: str) -> bool:
        """Whether this very address may be dialled."""
        found = _unwrapped(address.partition("%")[0])
        if found is None:
            return False
        if any(found in ip_network(network) for network in self.networks):
            return True
        public = found.is_global and not found.is_multicast and not found.is_reserved
        return public and not any(found in network for network in NEVER)

    def check(self, url: str | None, param: str) -> None:
        """Check the address as it is written; None is none.

        Raises:
            Invalid: nothing will ever be posted there.
        """
        reason = None if url is None else self.wrong_with(url)
        if reason is not None:
            raise Invalid(f"{param} {reason}", param=param)

    def wrong_with(self, url: str) -> str | None:
        """Why nothing will ever be posted to *url*; None: nothing is known against it."""
        parts = _parts(url)
        if parts is None:
            return "is no address that can be posted to"
        if parts.scheme != "https" and not self.http:
            return "must be an https address"
        if self.ports and port_of(parts) not in self.ports:
            return f"must have one of the ports {', '.join(map(str, self.ports))}"
        host = parts.hostname or ""
        if _unwrapped(host) is not None and not self.allows(host):
            return "must be a public address"
        return None


def _parts(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    fine = fine and parts.username is None and parts.password is None and len(url) <= URL_MAX_CHARS
    return parts if fine and url.isascii() and url.isprintable() and " " not in url and "\\" not in url else None


def port_of(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def receiver_of(url: str) -> str:
    """Who is behind *url*: scheme, host and port. Those of one receiver wait for each other."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{port_of(parts)}"


def _unwrapped(text: str) -> Address | None:
    """The address in numbers, without the clothes of an IPv4 address in IPv6; None: it is a name."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


# Posting


class RefusedAddressError(OSError):
    """The address leads where callbacks may not go."""

    def __init__(self) -> None:
        super().__init__("address refused")


class Posted(msgspec.Struct, frozen=True, gc=False):
    """What became of a try: delivered, or in a few fixed words why not; *gone*: the receiver wants no more (410)."""

    error: str | None = None
    gone: bool = False
    answered: bool = True
    """Whether the receiver answered at all."""


class Poster:
    """Who posts. To be closed."""

    def __init__(self, egress: Egress) -> None:
        self.egress = egress
        connector = TCPConnector(
            limit=0,  # whoever posts is bounded
            force_close=True,
            use_dns_cache=False,
            resolver=AsyncResolver(),  # the system's has few threads: a name server that hangs would have them all
            socket_factory=self._socket,
        )
        self._session = ClientSession(
            connector=connector,
            cookie_jar=DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            headers={"User-Agent": "task-ledger", "Content-Type": "application/json", "Accept": "*/*"},
        )

    async def close(self) -> None:
        await self._session.close()

    async def post(self, url: str, body: bytes, headers: dict[str, str], *, timeout_seconds: int) -> Posted:
        """Post *body*, within *timeout_seconds* from the look-up of the name to the end of the answer."""
        if self.egress.wrong_with(url) is not None:
            return Posted("address refused", answered=False)
        try:
            async with self._session.post(
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=ClientTimeout(total=timeout_seconds),
            ) as response:
                status = response.status
                await _pass_over(response.content)
        except (TimeoutError, ClientError, OSError, ValueError) as error:
            return Posted(reason_of(error), answered=False)
        if 200 <= status < 300:  # noqa: PLR2004 - the class of success
            return Posted()
        return Posted(str(status), gone=status == 410)  # noqa: PLR2004 - Gone

    def _socket(self, found: tuple[object, ...]) -> socket.socket:
        """A socket to dial the address that *found* ends in, if it may be dialled."""
        family, kind, protocol, _, where = found
        assert isinstance(where, tuple)
        if not self.egress.allows(str(where[0])):
            raise RefusedAddressError
        return socket.socket(family, kind, protocol)  # type: ignore[arg-type] # as getaddrinfo gave them


async def _pass_over(content: StreamReader) -> None:
    """Read what is answered and forget it, as far as is polite."""
    left = READ_MAX_BYTES
    while left > 0 and (chunk := await content.read(left)):
        left -= len(chunk)


def reason_of(error: BaseException) -> str:
    """Why a try failed, in fixed words: nothing that a receiver wrote, or that tells of our network."""
    causes = [error]
    while (cause := causes[-1].__cause__ or getattr(causes[-1], "os_error", None)) and len(causes) < 8:  # noqa: PLR2004
        causes.append(cause)
    for cause in causes:
        match cause:
            case RefusedAddressError():
                return "address refused"
            case TimeoutError():
                return "timeout"
            case ClientConnectorCertificateError() | ClientConnectorSSLError():
                return "tls failed"
            case ConnectionRefusedError():
                return "connection refused"
            case ConnectionResetError():
                return "connection reset"
            case ClientConnectorDNSError() | socket.gaierror():
                return "name not found"
            case _:
                pass
    return "connection failed"
