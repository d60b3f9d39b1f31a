"""Signatures, as those who publish the scheme verify them: by their own package, and while a secret is replaced."""

import hashlib
import hmac
import json
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from api.contracts import CONTRACTS, bytespike_webhooks, telling
from api.contracts.telling import Letter, signed, standard_webhooks
from ledger.callbacks import account_secret, open_secret, seal_secret
from ledger.errors import DamagedError
from ledger.memory import MemoryEngine
from ledger.times import US_PER_SECOND
from tests import npm
from tests.receiving import TO_LOOPBACK, Receiver, receiving
from tests.serving import ACCOUNT, Service, serving
from tests.test_callbacks import ended, over

PEPPER = b"pepper"
OLD, NEW = (account_secret(PEPPER, "acme", number) for number in (1, 2))
BODY = b'{"task_id":"task_1","status":"completed"}'
PINNED_SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
PINNED = "v1,vhwfgGB5h17HPgqnCvZnEQon5I2dplEDDAp4JcmKigI="
"""What the package of npm (standardwebhooks 1.1.1) signs this body with, under this secret."""


def letter(*secrets: str, at_us: int | None = None) -> Letter:
    at_us = int(datetime.now(tz=UTC).timestamp()) * US_PER_SECOND if at_us is None else at_us
    return Letter("msg_0123456789abcdef0123456789abcdef", at_us, BODY, secrets)


def test_the_package_of_npm_signs_the_same() -> None:
    assert standard_webhooks(letter(PINNED_SECRET, at_us=1_767_323_045_000_000)) == {
        "webhook-id": "msg_0123456789abcdef0123456789abcdef",
        "webhook-timestamp": "1767323045",
        "webhook-signature": PINNED,
    }


NPM_PACKAGE = "standardwebhooks@1.1.1"
VERIFIES = """
const { Webhook } = require("standardwebhooks");
const { secret, body, headers } = JSON.parse(require("fs").readFileSync(0, "utf8"));
try { new Webhook(secret).verify(body, headers); console.log("verified"); } catch (error) { console.log(error.name); }
"""


def test_the_package_of_npm_verifies_it_and_nothing_that_was_altered(pytestconfig: pytest.Config) -> None:
    node = npm.node(major_min=18)
    folder = npm.installed(NPM_PACKAGE, pytestconfig.cache)

    def says(secret: str, headers: dict[str, str], body: bytes = BODY) -> str:
        told = json.dumps({"secret": secret, "headers": headers, "body": body.decode()})
        done = subprocess.run(
            [node, "-e", VERIFIES], input=told, capture_output=True, check=True, text=True, timeout=30, cwd=folder
        )
        return done.stdout.strip()

    during = standard_webhooks(letter(NEW, OLD))
    assert [says(secret, during) for secret in (NEW, OLD)] == ["verified", "verified"]
    after = standard_webhooks(letter(NEW))
    assert says(OLD, after) == says(NEW, after, BODY + b" ") == "WebhookVerificationError"


def test_the_package_of_pypi_verifies_it() -> None:
    Webhook(OLD).verify(BODY, standard_webhooks(letter(OLD)))


def test_while_one_secret_replaces_another_both_verify() -> None:
    headers = standard_webhooks(letter(NEW, OLD))
    for secret in (NEW, OLD):
        Webhook(secret).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(BODY, standard_webhooks(letter(NEW)))


ALTERED: dict[str, dict[str, str]] = {
    "the id": {"webhook-id": "msg_1"},
    "the time": {"webhook-timestamp": str(int(datetime.now(tz=UTC).timestamp()) - 100)},
    "the signature": {"webhook-signature": "v1,AAAA"},
}


@pytest.mark.parametrize("what", [*ALTERED, "the body", "the secret", "an old letter"])
def test_what_was_altered_does_not_verify(what: str) -> None:
    stale = 1_767_323_045_000_000 if what == "an old letter" else None
    headers = standard_webhooks(letter(OLD, at_us=stale)) | ALTERED.get(what, {})
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW if what == "the secret" else OLD).verify(BODY + b" " * (what == "the body"), headers)


TELLINGS = {
    f"{name} {what}": told
    for name, contract in CONTRACTS.items()
    for what, told in (("task", contract.telling), ("webhook", contract.webhooks))
    if told is not None
}


@pytest.mark.parametrize("name", TELLINGS)
@pytest.mark.parametrize("secrets", [(NEW,), (NEW, OLD)])
def test_no_callback_of_any_contract_is_without_its_id(name: str, secrets: tuple[str, ...]) -> None:
    headers = TELLINGS[name].headers(letter(*secrets))
    ids = {headers[named] for named in ("webhook-id", "svix-id") if named in headers}
    assert ids == {"msg_0123456789abcdef0123456789abcdef"}


def test_svix_has_other_names_for_the_same() -> None:
    ours = standard_webhooks(letter(OLD))
    assert signed(letter(OLD), prefix="svix") == {
        name.replace("webhook", "svix"): value for name, value in ours.items()
    }


def test_bytespike_signs_the_body_alone_with_the_secret_as_a_text() -> None:
    headers = bytespike_webhooks.of_account(letter("s1", "s2"))
    wanted = [hmac.new(secret, BODY, hashlib.sha256).hexdigest() for secret in (b"s1", b"s2")]
    assert headers["X-ByteSpike-Signature"] == ",".join(f"sha256={mark}" for mark in wanted)
    assert headers["X-ByteSpike-Timestamp"] == str(letter().at_seconds)
    assert headers["webhook-id"] == letter().callback_id


# Secrets


def test_secrets_differ_by_account_number_and_pepper_and_come_again() -> None:
    made = [account_secret(*one) for one in ((PEPPER, "a", 1), (PEPPER, "a", 2), (PEPPER, "b", 1), (b"x", "a", 1))]
    assert len(set(made)) == 4
    assert all(one.startswith("whsec_") for one in made)
    assert account_secret(PEPPER, "a", 1) == made[0]


def test_a_sealed_secret_opens_under_its_pepper_and_for_its_webhook_only() -> None:
    sealed = seal_secret("my secret", pepper=PEPPER, nonce=bytes(12), webhook_id="wh_1")
    assert b"my secret" not in bytes.fromhex(sealed)
    assert open_secret(sealed, pepper=PEPPER, webhook_id="wh_1") == "my secret"
    for wrong in ({"pepper": b"x", "webhook_id": "wh_1"}, {"pepper": PEPPER, "webhook_id": "wh_2"}):
        with pytest.raises(DamagedError):
            open_secret(sealed, **wrong)  # type: ignore[arg-type]
    for text in ("", "zz", sealed[:20], sealed[:-2]):
        with pytest.raises(DamagedError):
            open_secret(text, pepper=PEPPER, webhook_id="wh_1")


def test_the_time_for_an_answer_is_ten_seconds() -> None:
    assert telling.TIMEOUT_SECONDS == 10


# Through the service


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving(MemoryEngine(), calls=TO_LOOPBACK) as running:
        yield running


def verified(told: Any, secret: str) -> bool:  # noqa: ANN401 - a request
    """Whether the package takes the request for one of this secret's; its clock is set by the test's."""
    headers = {name.lower(): value for name, value in told.headers.items()}
    at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), tz=UTC)
    mark = Webhook(secret).sign(headers["webhook-id"], at, told.body.decode())
    return mark in headers["webhook-signature"].split(" ")


@pytest.mark.parametrize("contract", ["lemondata", "bytespike", "beatra"])
async def test_a_rotation_leaves_no_gap(service: Service, receiver: Receiver, contract: str) -> None:
    secrets = f"/accounts/{ACCOUNT}/callback-secret"
    old = (await service.native("GET", secrets)).json()
    assert (old["old_secrets"], old["old_until"]) == ([], None)
    await over(service, await ended(service, receiver.url, contract))
    new = (await service.native("POST", f"{secrets}/rotate", {"overlap_seconds": 60})).json()
    assert new["old_secrets"] == [old["secret"]]
    await over(service, await ended(service, receiver.url, contract))
    service.clock.advance(61)
    assert (await service.native("GET", secrets)).json() == {
        "account": ACCOUNT,
        "secret": new["secret"],
        "old_secrets": [],
        "old_until": None,
    }
    await over(service, await ended(service, receiver.url, contract))
    before, during, after = receiver.told
    assert [verified(one, old["secret"]) for one in (before, during, after)] == [True, True, False]
    assert [verified(one, new["secret"]) for one in (before, during, after)] == [False, True, True]


async def test_no_secret_lies_in_the_log(service: Service) -> None:
    new = (await service.native("POST", f"/accounts/{ACCOUNT}/callback-secret/rotate", {})).json()
    rows = await service.ledger.engine.after(0, 1000)
    stored = b"".join(row.entry.facts for row in rows)
    for secret in (new["secret"], *new["old_secrets"]):
        assert secret.encode() not in stored
        assert secret not in service.output()
