"""The bytes of every event, as they lie in the logs of those who run us: these rows may grow, never change."""

import json
from typing import Any, get_args

import msgspec
import pytest
from msgspec import UNSET

from ledger.event_bytes import decode, encode
from ledger.events import (
    AnyEvent,
    BreakCorrected,
    BreakExplained,
    BreakKind,
    BreakOpened,
    CallbackAttempted,
    CallbackResent,
    CallbackSecretRotated,
    Cancelled,
    CancelRequested,
    Charged,
    Claimed,
    Completed,
    CostMoved,
    Created,
    CreditGranted,
    CreditLimited,
    CreditMoved,
    CreditRevoked,
    Deleted,
    Event,
    Expired,
    Failed,
    Held,
    KeyIssued,
    KeyRevoked,
    LateReported,
    MoneyEvent,
    Notice,
    Payload,
    Progressed,
    ProjectionSwitched,
    ProviderBilled,
    ProviderCredited,
    Refunded,
    Released,
    School,
    Stalled,
    Started,
    StatementRead,
    StatementReplaced,
    Terms,
    UpdateRequested,
    UpdateReverted,
    WebhookAdded,
    WebhookChanged,
    WebhookRemoved,
    amount_of,
    tag_of,
)
from ledger.upcasts import SHAPE

CLAIM = Claimed(account="acme", operation="create", key="order-4711", fingerprint="9f86d081")
PLAIN_TERMS = Terms(school=School.PREPAID, rate_version="2026-01", estimated_micros=80_000_000)
FULL_TERMS = Terms(
    school=School.HOLD,
    rate_version="2026-01",
    estimated_micros=1_500_000,
    cancellable=False,
    point_of_no_return_percent=25,
    cancel_rate_micros_per_second=100_000,
    output_seconds=15,
)

GOLDEN: list[tuple[AnyEvent, str, str | None]] = [  # event, its facts, its payload
    (
        Created(
            at_us=1_767_323_045_000_000,
            account="acme",
            contract="beatra",
            capability="text-to-music",
            model="auto",
            provider="suno",
            terms=PLAIN_TERMS,
        ),
        (
            '{"type":"created","at_us":1767323045000000,"account":"acme","contract":"beatra",'
            '"capability":"text-to-music","model":"auto","provider":"suno",'
            '"terms":{"school":"prepaid","rate_version":"2026-01","estimated_micros":80000000}}'
        ),
        None,
    ),
    (
        Created(
            at_us=1_767_323_045_000_000,
            payload=Payload(input={"prompt": "a fjord at dawn, “blå”"}, metadata={"order": 4711}),
            claims=(CLAIM,),
            account="acme",
            contract="lemondata",
            capability="text-to-video",
            model="sora-2",
            provider="openai",
            terms=FULL_TERMS,
            resolved_model="sora-2-2026-01-01",
            estimated_seconds=35,
            out_task_id="order-4711",
            callback_url="https://acme.example/done",
            expires_at_us=1_767_326_645_000_000,
        ),
        (
            '{"type":"created","at_us":1767323045000000,'
            '"claims":[{"account":"acme","operation":"create","key":"order-4711","fingerprint":"9f86d081"}],'
            '"account":"acme","contract":"lemondata","capability":"text-to-video","model":"sora-2",'
            '"provider":"openai","terms":{"school":"hold","rate_version":"2026-01","estimated_micros":1500000,'
            '"cancellable":false,"point_of_no_return_percent":25,"cancel_rate_micros_per_second":100000,'
            '"output_seconds":15},"resolved_model":"sora-2-2026-01-01","estimated_seconds":35,'
            '"out_task_id":"order-4711","callback_url":"https://acme.example/done",'
            '"expires_at_us":1767326645000000}'
        ),
        '{"input":{"prompt":"a fjord at dawn, “blå”"},"metadata":{"order":4711}}',
    ),
    (
        Started(at_us=1, worker="w1", provider_task_id="cgt-2026", implied=True),
        '{"type":"started","at_us":1,"worker":"w1","provider_task_id":"cgt-2026","implied":true}',
        None,
    ),
    (Started(at_us=1), '{"type":"started","at_us":1}', None),
    (
        Progressed(at_us=2, payload=Payload(message="frame 40"), percent=40, stage="render"),
        '{"type":"progressed","at_us":2,"percent":40,"stage":"render"}',
        '{"message":"frame 40"}',
    ),
    (
        CancelRequested(at_us=3, payload=Payload(message="wrong prompt"), unsupported=True),
        '{"type":"cancel-requested","at_us":3,"unsupported":true}',
        '{"message":"wrong prompt"}',
    ),
    (Cancelled(at_us=4, confirmed=True), '{"type":"cancelled","at_us":4,"confirmed":true}', None),
    (Cancelled(at_us=4), '{"type":"cancelled","at_us":4}', None),
    (
        Completed(
            at_us=5,
            payload=Payload(
                output={"assets": [{"kind": "video", "url": "https://cdn.example/1.mp4"}]},
                warnings=(
                    Notice(code="clipped", message="only 12 seconds", field="duration"),
                    Notice(code="model_routed", message="auto"),
                ),
            ),
            usage={"meters": {"seconds": 12.5}},
        ),
        '{"type":"completed","at_us":5,"usage":{"meters":{"seconds":12.5}}}',
        (
            '{"output":{"assets":[{"kind":"video","url":"https://cdn.example/1.mp4"}]},"warnings":['
            '{"code":"clipped","message":"only 12 seconds","field":"duration"},'
            '{"code":"model_routed","message":"auto"}]}'
        ),
    ),
    (
        Failed(at_us=6, payload=Payload(message="out of memory"), code="provider_error", retryable=True),
        '{"type":"failed","at_us":6,"code":"provider_error","retryable":true}',
        '{"message":"out of memory"}',
    ),
    (Expired(at_us=7), '{"type":"expired","at_us":7}', None),
    (
        Held(at_us=8, amount_micros=1_500_000, key="hold:1", cause="created"),
        '{"type":"held","at_us":8,"amount_micros":1500000,"key":"hold:1","cause":"created"}',
        None,
    ),
    (
        Released(at_us=9, amount_micros=500_000, key="release:settle:1", cause="completed"),
        '{"type":"released","at_us":9,"amount_micros":500000,"key":"release:settle:1","cause":"completed"}',
        None,
    ),
    (
        Charged(at_us=10, amount_micros=1_000_000, key="charge:settle:1", cause="completed"),
        '{"type":"charged","at_us":10,"amount_micros":1000000,"key":"charge:settle:1","cause":"completed"}',
        None,
    ),
    (
        Refunded(
            at_us=11,
            payload=Payload(message="goodwill"),
            claims=(CLAIM, CLAIM),
            amount_micros=1,
            key="refunded:k",
            cause="refunded",
        ),
        (
            '{"type":"refunded","at_us":11,'
            '"claims":[{"account":"acme","operation":"create","key":"order-4711","fingerprint":"9f86d081"},'
            '{"account":"acme","operation":"create","key":"order-4711","fingerprint":"9f86d081"}],'
            '"amount_micros":1,"key":"refunded:k","cause":"refunded"}'
        ),
        '{"message":"goodwill"}',
    ),
    (
        UpdateRequested(at_us=12, payload=Payload(input={"ocr_strategy": "All"})),
        '{"type":"update-requested","at_us":12}',
        '{"input":{"ocr_strategy":"All"}}',
    ),
    (
        UpdateReverted(at_us=13, cause="failed", code="page_limit"),
        '{"type":"update-reverted","at_us":13,"cause":"failed","code":"page_limit"}',
        None,
    ),
    (Stalled(at_us=14, silent_since_us=13), '{"type":"stalled","at_us":14,"silent_since_us":13}', None),
    (
        LateReported(
            at_us=15,
            reported="completed",
            code="provider_error",
            percent=90,
            claimed_micros=1_500_000,
            usage={"tokens": 7},
        ),
        (
            '{"type":"late-reported","at_us":15,"reported":"completed","code":"provider_error","percent":90,'
            '"claimed_micros":1500000,"usage":{"tokens":7}}'
        ),
        None,
    ),
    (
        CallbackAttempted(at_us=16, attempt=2, delivered=False, error="503"),
        '{"type":"callback-attempted","at_us":16,"attempt":2,"delivered":false,"error":"503"}',
        None,
    ),
    (
        CallbackAttempted(at_us=16, attempt=3, delivered=False, error="410", about=4, gave_up=True, webhook="wh_1"),
        (
            '{"type":"callback-attempted","at_us":16,"attempt":3,"delivered":false,"error":"410","about":4,'
            '"gave_up":true,"webhook":"wh_1"}'
        ),
        None,
    ),
    (Deleted(at_us=17), '{"type":"deleted","at_us":17}', None),
    (
        KeyIssued(at_us=18, key_id="k1", role="client", contract="chunkr", digest="c0ffee", replaces="k0"),
        (
            '{"type":"key-issued","at_us":18,"key_id":"k1","role":"client","contract":"chunkr",'
            '"digest":"c0ffee","replaces":"k0"}'
        ),
        None,
    ),
    (
        KeyRevoked(at_us=19, key_id="k1", revoked_at_us=20),
        '{"type":"key-revoked","at_us":19,"key_id":"k1","revoked_at_us":20}',
        None,
    ),
    (
        CreditLimited(at_us=20, limit_micros=10_000_000),
        '{"type":"credit-limited","at_us":20,"limit_micros":10000000}',
        None,
    ),
    (CreditLimited(at_us=21, limit_micros=None), '{"type":"credit-limited","at_us":21,"limit_micros":null}', None),
    (
        CreditGranted(at_us=22, amount_micros=5, key="g1", reason="sorry"),
        '{"type":"credit-granted","at_us":22,"amount_micros":5,"key":"g1","reason":"sorry"}',
        None,
    ),
    (
        CreditRevoked(at_us=23, amount_micros=4, key="r1", reason="a slip", grant="g1"),
        '{"type":"credit-revoked","at_us":23,"amount_micros":4,"key":"r1","reason":"a slip","grant":"g1"}',
        None,
    ),
    (
        WebhookAdded(
            at_us=24,
            webhook_id="wh_1",
            contract="bytespike",
            url="https://acme.example/hook",
            tells=("completed", "failed"),
            sealed_secret="c0ffee",
        ),
        (
            '{"type":"webhook-added","at_us":24,"webhook_id":"wh_1","contract":"bytespike",'
            '"url":"https://acme.example/hook","tells":["completed","failed"],"sealed_secret":"c0ffee"}'
        ),
        None,
    ),
    (
        WebhookChanged(
            at_us=25,
            webhook_id="wh_1",
            url="https://acme.example/other",
            tells=("failed",),
            enabled=False,
            sealed_secret="facade",
        ),
        (
            '{"type":"webhook-changed","at_us":25,"webhook_id":"wh_1","url":"https://acme.example/other",'
            '"tells":["failed"],"enabled":false,"sealed_secret":"facade"}'
        ),
        None,
    ),
    (WebhookRemoved(at_us=26, webhook_id="wh_1"), '{"type":"webhook-removed","at_us":26,"webhook_id":"wh_1"}', None),
    (
        CallbackSecretRotated(at_us=27, generation=2, old_until_us=30),
        '{"type":"callback-secret-rotated","at_us":27,"generation":2,"old_until_us":30}',
        None,
    ),
    (
        CallbackResent(
            at_us=28,
            callback_id="msg_1",
            task="019ab1c2-7d04-78a5-9bcd-0123456789ab",
            about=4,
            webhook="w",
            reason="they were down",
        ),
        (
            '{"type":"callback-resent","at_us":28,"callback_id":"msg_1",'
            '"task":"019ab1c2-7d04-78a5-9bcd-0123456789ab","about":4,"webhook":"w","reason":"they were down"}'
        ),
        None,
    ),
    (
        StatementReplaced(at_us=21, statement="9f86d081", provider="volcengine", by="60303ae2"),
        '{"type":"statement-replaced","at_us":21,"statement":"9f86d081","provider":"volcengine","by":"60303ae2"}',
        None,
    ),
    (
        StatementRead(
            at_us=21,
            statement="9f86d081",
            provider="volcengine",
            lines=9,
            malformed=1,
            billed_micros=1_500_000,
            breaks=2,
            position=4711,
        ),
        (
            '{"type":"statement-read","at_us":21,"statement":"9f86d081","provider":"volcengine","lines":9,"malformed":1,'
            '"billed_micros":1500000,"breaks":2,"position":4711}'
        ),
        None,
    ),
    (
        ProviderBilled(
            at_us=20,
            amount_micros=500_000,
            provider="volcengine",
            line="line L9",
            line_micros=1_500_000,
            statement="9f86d081",
            task="019ab1c2-7d04-78a5-9bcd-0123456789ab",
            account="acme",
            contract="lemondata",
            model="seedance-2.0",
            credits_per_unit="1/3",
        ),
        (
            '{"type":"provider-billed","at_us":20,"amount_micros":500000,"provider":"volcengine","line":"line L9",'
            '"line_micros":1500000,"statement":"9f86d081","task":"019ab1c2-7d04-78a5-9bcd-0123456789ab",'
            '"account":"acme","contract":"lemondata","model":"seedance-2.0","credits_per_unit":"1/3"}'
        ),
        None,
    ),
    (
        ProviderCredited(
            at_us=20,
            amount_micros=2,
            provider="volcengine",
            line="line L9",
            line_micros=-2,
            statement="9f86d081",
            task="019ab1c2-7d04-78a5-9bcd-0123456789ab",
            account="acme",
            contract="lemondata",
            model="seedance-2.0",
            credits_per_unit="1/3",
        ),
        (
            '{"type":"provider-credited","at_us":20,"amount_micros":2,"provider":"volcengine","line":"line L9",'
            '"line_micros":-2,"statement":"9f86d081","task":"019ab1c2-7d04-78a5-9bcd-0123456789ab",'
            '"account":"acme","contract":"lemondata","model":"seedance-2.0","credits_per_unit":"1/3"}'
        ),
        None,
    ),
    (
        BreakOpened(
            at_us=22,
            break_id="0123456789ab8def8123456789abcdef",
            provider="volcengine",
            kind=BreakKind.MISSING_HERE,
            about="line L9",
            at_stake_micros=1_500_000,
            since_us=20,
            detail="billed 1.5",
            task="019ab1c2-7d04-78a5-9bcd-0123456789ab",
            lines=(10,),
            line_ids=("L9",),
            statement="9f86d081",
            owner="finance",
        ),
        (
            '{"type":"break-opened","at_us":22,"break_id":"0123456789ab8def8123456789abcdef","provider":"volcengine",'
            '"kind":"missing-here","about":"line L9","at_stake_micros":1500000,"since_us":20,"detail":"billed 1.5",'
            '"task":"019ab1c2-7d04-78a5-9bcd-0123456789ab","lines":[10],"line_ids":["L9"],"statement":"9f86d081",'
            '"owner":"finance"}'
        ),
        None,
    ),
    (
        BreakExplained(at_us=23, break_id="0123456789ab8def8123456789abcdef", reason="a trial", owner="ops"),
        (
            '{"type":"break-explained","at_us":23,"break_id":"0123456789ab8def8123456789abcdef","reason":"a trial",'
            '"owner":"ops"}'
        ),
        None,
    ),
    (
        BreakCorrected(at_us=24, break_id="0123456789ab8def8123456789abcdef", reason="refunded", position=4712),
        (
            '{"type":"break-corrected","at_us":24,"break_id":"0123456789ab8def8123456789abcdef","reason":"refunded",'
            '"position":4712}'
        ),
        None,
    ),
    (
        BreakCorrected(at_us=25, break_id="0123456789ab8def8123456789abcdef", reason="agrees now", agrees=True),
        (
            '{"type":"break-corrected","at_us":25,"break_id":"0123456789ab8def8123456789abcdef","reason":"agrees now",'
            '"agrees":true}'
        ),
        None,
    ),
    (
        Created(
            at_us=1_767_323_045_000_000,
            account="acme",
            contract="chunkr",
            capability="parse",
            model="chunkr-parse",
            provider="chunkr",
            terms=Terms(school=School.ON_SUCCESS, rate_version="2026-01", estimated_micros=10_000),
            follows="019ab1c2-7d04-78a5-9bcd-0123456789ab",
        ),
        (
            '{"type":"created","at_us":1767323045000000,"account":"acme","contract":"chunkr","capability":"parse",'
            '"model":"chunkr-parse","provider":"chunkr",'
            '"terms":{"school":"on-success","rate_version":"2026-01","estimated_micros":10000},'
            '"follows":"019ab1c2-7d04-78a5-9bcd-0123456789ab"}'
        ),
        None,
    ),
    *(
        (
            kind(
                at_us=26,
                amount_micros=333_333,
                provider="volcengine",
                line="line L1",
                line_micros=line_micros,
                statement="9f86d081",
                credits_per_unit="1/3",
                rounded_from=units,
            ),
            (
                f'{{"type":"{tag}","at_us":26,"amount_micros":333333,"provider":"volcengine","line":"line L1",'
                f'"line_micros":{line_micros},"statement":"9f86d081","credits_per_unit":"1/3","rounded_from":"{units}"}}'
            ),
            None,
        )
        for kind, tag, line_micros, units in (
            (ProviderBilled, "provider-billed", 333_333, "1"),
            (ProviderCredited, "provider-credited", -333_333, "-1"),
        )
    ),
    (
        ProjectionSwitched(at_us=25, projection="tasks", position=4713, replaced=2, back=True),
        '{"type":"projection-switched","at_us":25,"projection":"tasks","position":4713,"replaced":2,"back":true}',
        None,
    ),
]
golden = pytest.mark.parametrize(
    ("event", "facts", "payload"),
    [pytest.param(*row, id=f"{place}-{tag_of(row[0])}") for place, row in enumerate(GOLDEN)],
)


@golden
def test_an_event_is_written_as_these_very_bytes(event: AnyEvent, facts: str, payload: str | None) -> None:
    assert encode(event) == (facts.encode(), None if payload is None else payload.encode())


@golden
def test_these_very_bytes_are_read_as_the_event(event: AnyEvent, facts: str, payload: str | None) -> None:
    assert decode(facts.encode(), None if payload is None else payload.encode()) == event


@golden
def test_nothing_that_a_customer_may_want_erased_lies_among_the_facts(
    event: AnyEvent, facts: str, payload: str | None
) -> None:
    assert (payload is None) == (event.content == Payload())
    assert not {"payload", "input", "metadata", "output", "message"} & json.loads(facts).keys()


def test_every_event_has_a_golden_row() -> None:
    assert {type(event) for event, _, _ in GOLDEN} == set(get_args(AnyEvent))


@pytest.mark.parametrize("kind", get_args(AnyEvent))
def test_every_field_of_an_event_lies_in_a_golden_row(kind: type[AnyEvent]) -> None:
    rows = [json.loads(facts) for event, facts, _ in GOLDEN if type(event) is kind]
    common = {"type", "at_us", "claims", "shape"}
    pinned = set[str]().union(*rows) - common
    assert pinned == set(kind.__struct_fields__) - {*common, "payload"}


@pytest.mark.parametrize("kind", [Terms, Notice, Claimed, Payload])
def test_every_field_inside_an_event_lies_in_a_golden_row(kind: type[msgspec.Struct]) -> None:
    rows = [part for _, facts, payload in GOLDEN for part in _parts(json.loads(facts), payload)]
    fields = set(kind.__struct_fields__)
    assert set[str]().union(*(row for row in rows if row.keys() <= fields)) == fields


def _parts(facts: dict[str, Any], payload: str | None) -> list[dict[str, Any]]:
    content = json.loads(payload) if payload else {}
    parts: list[dict[str, Any]] = [*facts.get("claims", []), *content.get("warnings", [])]
    parts += [facts["terms"]] if "terms" in facts else []
    return [*parts, content] if content else parts


FOR_NOBODY: dict[str, object] = {
    "task": None,
    "account": "",
    "contract": "",
    "model": "",
    "credits_per_unit": "1",
    "rounded_from": "",
}
LEFT_OUT: dict[type[msgspec.Struct], dict[str, object]] = {  # what the absence of a field means, for ever
    Created: {
        "resolved_model": None,
        "estimated_seconds": None,
        "out_task_id": None,
        "callback_url": None,
        "expires_at_us": None,
        "follows": None,
    },
    Started: {"worker": None, "provider_task_id": None, "implied": False},
    Progressed: {"percent": None, "stage": None},
    CancelRequested: {"unsupported": False},
    Cancelled: {"confirmed": False},
    Completed: {"usage": None},
    Failed: {"retryable": False},
    UpdateReverted: {"code": None},
    LateReported: {"code": None, "percent": None, "claimed_micros": None, "usage": None},
    CallbackAttempted: {"error": None, "about": 0, "gave_up": False, "webhook": None},
    WebhookChanged: {"sealed_secret": None},
    CallbackResent: {"webhook": None, "reason": None},
    KeyIssued: {"replaces": None},
    CreditGranted: {"reason": None},
    CreditRevoked: {"reason": None},
    ProviderBilled: FOR_NOBODY,
    ProviderCredited: FOR_NOBODY,
    BreakOpened: {"task": None, "lines": (), "line_ids": (), "statement": None, "owner": None},
    BreakExplained: {"owner": None},
    BreakCorrected: {"position": None, "agrees": False},
    ProjectionSwitched: {"back": False},
    Terms: {
        "cancellable": True,
        "point_of_no_return_percent": None,
        "cancel_rate_micros_per_second": 0,
        "output_seconds": 0,
    },
    Notice: {"field": None},
    Payload: {"input": None, "metadata": None, "output": None, "message": None, "warnings": ()},
}


@pytest.mark.parametrize("kind", [*get_args(AnyEvent), Terms, Notice, Claimed, Payload])
def test_a_field_left_out_means_what_it_always_meant(kind: type[msgspec.Struct]) -> None:
    optional = {field.name: field.default for field in msgspec.structs.fields(kind) if not field.required}
    common = {"payload": UNSET, "claims": (), "shape": SHAPE} if issubclass(kind, Event) else {}
    assert optional == {**common, **LEFT_OUT.get(kind, {})}


def test_the_billing_schools_keep_their_names() -> None:
    assert [school.value for school in School] == ["hold", "prepaid", "on-success"]


def test_the_kinds_of_breaks_keep_their_names() -> None:
    assert [kind.value for kind in BreakKind] == [
        "missing-here",
        "missing-there",
        "amount",
        "duplicate",
        "late",
        "currency",
        "status-conflict",
        "unsettled",
        "avoidable-cost",
    ]


@pytest.mark.parametrize("kind", [*get_args(AnyEvent), MoneyEvent, CreditMoved, Event, Terms, Notice, Claimed, Payload])
def test_a_fact_cannot_be_changed(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.frozen


def test_no_two_events_share_a_tag() -> None:
    tags = [kind.__struct_config__.tag for kind in get_args(AnyEvent)]
    assert len(set(tags)) == len(tags)


@golden
def test_the_tag_is_the_events_type_on_the_wire(event: AnyEvent, facts: str, payload: str | None) -> None:
    del payload
    assert facts.startswith(f'{{"type":"{tag_of(event)}"')


@golden
def test_money_events_and_no_others_have_an_amount(event: AnyEvent, facts: str, payload: str | None) -> None:
    del payload
    assert amount_of(event) == json.loads(facts).get("amount_micros")
    assert isinstance(event, MoneyEvent | CreditMoved | CostMoved) == (amount_of(event) is not None)


# Reading what other hands and other versions wrote


def test_an_event_whose_payload_was_erased_still_tells_its_facts() -> None:
    event = Failed(at_us=6, payload=Payload(message="my secret prompt"), code="refused")
    facts, _ = encode(event)
    assert decode(facts, None) == Failed(at_us=6, code="refused")
    assert decode(facts, None).content == Payload()


def test_an_empty_payload_is_not_the_same_as_none() -> None:
    assert encode(Expired(at_us=1, payload=Payload())) == (b'{"type":"expired","at_us":1}', b"{}")
    assert decode(b'{"type":"expired","at_us":1}', b"{}") == Expired(at_us=1, payload=Payload())


def test_a_field_that_a_newer_version_added_does_no_harm() -> None:
    assert decode(b'{"type":"expired","at_us":1,"swept_by":"n2"}', None) == Expired(at_us=1)


@pytest.mark.parametrize(
    "facts",
    [
        b'{"type":"exploded","at_us":1}',
        b'{"at_us":1}',
        b'{"type":"expired"}',
        b'{"type":"expired","at_us":1.5}',
        b'{"type":"expired","at_us":"1"}',
        b'{"type":"failed","at_us":1}',
        b'{"type":"charged","at_us":1,"amount_micros":"5","key":"k","cause":"c"}',
        b'{"type":"charged","at_us":1,"amount_micros":0.5,"key":"k","cause":"c"}',
        b"[]",
    ],
)
def test_facts_that_no_version_wrote_are_not_read(facts: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode(facts, None)
