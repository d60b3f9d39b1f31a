"""Where callbacks may go: the corpus of ways inside, each tried for real against a listener that nothing may reach."""

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from api.bodies import url_in
from api.egress import READ_MAX_BYTES, Egress, Poster, receiver_of
from api.refusals import Invalid
from tests.receiving import HANGS, LOOPBACK, Receiver, receiving

STRICT = Egress()
ANY_WAY = Egress(http=True, ports=())
"""Any text and port is taken, so that only the guard at the socket is left."""

# Addresses

NEVER_DIALLED = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",  # noqa: S104 - it is dialled, not listened on
    "10.1.2.3",
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "192.88.99.1",
    "192.0.0.192",
    "168.63.129.16",
    "3fff::1",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
    "fec0::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd12:3456::1",
    "ff02::1",
    "2001:db8::1",
    "100::1",
    "not an address",
    "",
]
DIALLED = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", NEVER_DIALLED)
def test_an_address_inside_is_never_dialled(address: str) -> None:
    assert not STRICT.allows(address)


@pytest.mark.parametrize("address", DIALLED)
def test_a_public_address_is_dialled(address: str) -> None:
    assert STRICT.allows(address)


@pytest.mark.parametrize(
    "address", ["64:ff9b::7f00:1", "2002:7f00:1::", "fec0::1", "192.88.99.1", "224.0.0.1", "168.63.129.16"]
)
def test_the_interpreter_calls_some_of_them_global(address: str) -> None:
    """Why there is a list of our own."""
    assert ip_address(address).is_global


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_in_all_its_clothes(address: IPv4Address) -> None:
    number = int(address)
    assert STRICT.allows(f"::ffff:{address}") is STRICT.allows(str(address))
    for wrapped in (number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80):
        assert not STRICT.allows(str(IPv6Address(wrapped))), "nobody knows where such a one comes out"


def test_an_operator_may_allow_a_range_and_gets_nothing_else_by_it() -> None:
    egress = Egress(networks=("10.20.0.0/16", "fd00:1::/32"))
    assert egress.allows("10.20.1.1")
    assert egress.allows("::ffff:10.20.1.1")
    assert egress.allows("fd00:1::1")
    assert not egress.allows("10.21.1.1")
    assert not egress.allows("127.0.0.1")


def test_a_range_that_is_none_is_refused_when_the_settings_are_read() -> None:
    with pytest.raises(ValueError, match=r"10\.20"):
        Egress(networks=("10.20.0.0/99",))


# Texts

WRITTEN_WRONG = [
    "http://example.com/",
    "ftp://example.com/",
    "https://user@example.com/",
    "https://user:pass@example.com/",
    "https://example.com:22/",
    "https://example.com:80/",
    "https://example.com:0/",
    "https://example.com:99999/",
    "https://127.0.0.1/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://169.254.169.254/latest/meta-data",
    "https://[64:ff9b::7f00:1]/",
    "https:///nowhere",
    "https://",
    "//example.com/",
    "https://exam ple.com/",
    "https://example.com\\@127.0.0.1/",
    "https://①②⑦.⓪.⓪.①/",
    "https://ex\u00e4mple.com/",
    "https://example.com/\r\nHost: inside",
    "https://[::1",
    f"https://example.com/{'x' * 2048}",
]


@pytest.mark.parametrize("url", WRITTEN_WRONG)
def test_an_address_that_can_never_be_right_is_refused_as_it_is_written(url: str) -> None:
    assert STRICT.wrong_with(url) is not None
    with pytest.raises(Invalid):
        STRICT.check(url, "callback_url")


@pytest.mark.parametrize(
    "url", ["https://example.com/", "https://example.com:8443/a?b=c", "https://xn--exmple-cua.com/"]
)
def test_an_address_in_the_internet_is_taken(url: str) -> None:
    STRICT.check(url, "callback_url")
    STRICT.check(None, "callback_url")
    assert url_in(url, "callback_url") == url


def test_a_receiver_is_a_scheme_a_host_and_a_port() -> None:
    assert receiver_of("https://Example.com/a?b") == "https://example.com:443"
    assert receiver_of("http://example.com:81/") == "http://example.com:81"


# For real: nothing reaches the canary


@pytest.fixture
async def canary() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        one.is_anybodys = True  # what reaches it at all has got too far
        yield one


@asynccontextmanager
async def posting(egress: Egress) -> AsyncIterator[Poster]:
    poster = Poster(egress)
    try:
        yield poster
    finally:
        await poster.close()


SPELLINGS = [
    "127.0.0.1",
    "localhost",
    "localhost.",
    "LOCALHOST",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "0",
    "0.0.0.0",  # noqa: S104 - as above
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:7f00:1]",
    "%31%32%37.0.0.1",
    "①②⑦.0.0.1",
    "127。0。0。1",
    "user@127.0.0.1",
    "example.com@127.0.0.1",
]


@pytest.mark.parametrize("host", SPELLINGS)
async def test_no_spelling_of_this_machine_is_posted_to(canary: Receiver, host: str) -> None:
    async with posting(ANY_WAY) as poster:
        posted = await poster.post(f"http://{host}:{canary.port}/", b"{}", {}, timeout_seconds=5)
    assert posted.error in {"address refused", "connection failed", "name not found"}
    assert canary.told == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
async def test_without_the_guard_the_same_addresses_do_reach_it(
    canary: Receiver, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: were the canary not to be reached anyhow, the test above would prove nothing."""
    monkeypatch.setattr(Egress, "allows", lambda *_: True)
    async with posting(ANY_WAY) as poster:
        assert (await poster.post(f"http://{host}:{canary.port}/", b"{}", {}, timeout_seconds=5)).error is None
    assert len(canary.told) == 1


class Rebinding(AbstractResolver):
    """Says something public first, and then this machine."""

    def __init__(self, *answers: str) -> None:
        self.answers: Iterator[str] = iter(answers)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        found = next(self.answers)
        return [
            ResolveResult(hostname=host, host=found, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST)
        ]

    async def close(self) -> None:
        pass


async def test_a_name_that_is_answered_otherwise_the_second_time_leads_nowhere(
    canary: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Rebinding("127.0.0.1", "127.0.0.1")
    async with posting(ANY_WAY) as poster:
        monkeypatch.setattr(poster._session.connector, "_resolver", resolver)
        for _ in range(2):
            posted = await poster.post(f"http://example.com:{canary.port}/", b"{}", {}, timeout_seconds=5)
            assert posted.error == "address refused"
    assert resolver.asked == 2, "no answer is kept"
    assert canary.told == []


async def test_a_redirect_inside_is_not_followed(canary: Receiver) -> None:
    async with receiving() as outside, posting(LOOPBACK) as poster:
        outside.answer, outside.headers = lambda _: 302, {"Location": canary.url}
        posted = await poster.post(outside.url, b"{}", {}, timeout_seconds=5)
    assert posted.error == "302"
    assert canary.told == []


async def test_a_port_that_is_not_allowed_is_not_dialled_though_it_was_once(canary: Receiver) -> None:
    """What was taken under other settings is checked when it is sent, too."""
    async with posting(Egress(http=True, networks=("127.0.0.0/8",))) as poster:
        posted = await poster.post(canary.url, b"{}", {}, timeout_seconds=5)
    assert posted.error == "address refused"
    assert canary.told == []


async def test_a_proxy_of_the_environment_is_passed_over(canary: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as proxy, posting(LOOPBACK) as poster:
        proxy.is_anybodys = True
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert (await poster.post(canary.url, b"{}", {}, timeout_seconds=5)).error is None
        assert proxy.told == []


# Bounds


async def test_one_that_does_not_answer_is_left_in_time(canary: Receiver) -> None:
    canary.answer = lambda _: HANGS
    async with posting(LOOPBACK) as poster:
        posted = await poster.post(canary.url, b"{}", {}, timeout_seconds=1)
    assert (posted.error, posted.answered) == ("timeout", False)


async def test_an_endless_answer_is_hung_up_on() -> None:
    sent = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 16_384)
                await writer.drain()
                sent += 16_384
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, posting(LOOPBACK) as poster:
        posted = await poster.post(f"http://127.0.0.1:{port}/", b"{}", {}, timeout_seconds=30)
    assert posted.error is None
    assert sent < 100 * READ_MAX_BYTES


async def test_a_name_that_there_is_not_is_told_in_fixed_words() -> None:
    async with posting(ANY_WAY) as poster:
        posted = await poster.post("http://nothing.invalid/", b"{}", {}, timeout_seconds=10)
    assert posted.error in {"name not found", "timeout"}  # the latter without a name server


async def test_nobody_listens_is_told_in_fixed_words() -> None:
    async with receiving() as gone:
        url = gone.url
    async with posting(LOOPBACK) as poster:
        assert (await poster.post(url, b"{}", {}, timeout_seconds=5)).error == "connection refused"


async def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=_untrusted(tmp_path))
    port = server.sockets[0].getsockname()[1]
    async with server, posting(Egress(ports=(), networks=("127.0.0.0/8",))) as poster:
        posted = await poster.post(f"https://127.0.0.1:{port}/", b"{}", {}, timeout_seconds=5)
    assert posted.error == "tls failed"


def _untrusted(folder: Path) -> ssl.SSLContext:
    """A server's side of TLS whose certificate it has made itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=36_500))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    (folder / "both.pem").write_bytes(private + made.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return context
