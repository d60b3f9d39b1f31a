"""When a callback is tried again, what an account may arrange, and what its stream must be: rules as sentences."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given as given_any
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from api.contracts import CONTRACTS
from ledger.callback_log import CallbackLog
from ledger.callbacks import (
    DAY_SECONDS,
    JITTER_PERCENT,
    NOTHING_ARRANGED,
    WEBHOOKS_MAX,
    AddWebhook,
    Arranged,
    CallbackCommand,
    Calling,
    ChangeWebhook,
    RemoveWebhook,
    Resend,
    RotateSecret,
    callback_id,
    callback_violations,
    callbacks_stream,
    decide_callback,
    due_us,
    evolve_arranged,
    fold_arranged,
)
from ledger.errors import TooManyWebhooks, UnknownWebhook
from ledger.events import CallbackAttempted, CallbackEvent, CallbackResent, CallbackSecretRotated, WebhookRemoved
from ledger.ids import TaskId
from ledger.memory import MemoryEngine
from ledger.records import Append, entry
from ledger.task import Callback
from ledger.times import US_PER_DAY, US_PER_SECOND
from projections.audit.audit import audit
from projections.audit.findings import Check
from tests.rules_dsl import called_back, complete, create, given, start

CALLING = Calling(frozenset({"completed"}))
TASK = TaskId(bytes(range(16)))

# Again


@given_any(st.text("abc", min_size=1, max_size=8))
def test_who_was_down_for_a_day_is_told_by_himself(name: str) -> None:
    at_us = 0
    for tried in range(1, len(DAY_SECONDS) + 1):
        due = due_us(CALLING, name, tried=tried, failed_at_us=at_us)
        assert due is not None
        planned_us = DAY_SECONDS[tried - 1] * US_PER_SECOND
        assert planned_us <= due - at_us <= planned_us * (100 + JITTER_PERCENT) // 100
        at_us = due
    assert at_us > US_PER_DAY
    assert due_us(CALLING, name, tried=len(DAY_SECONDS) + 1, failed_at_us=at_us) is None


def test_those_who_failed_together_do_not_come_back_together() -> None:
    times = {due_us(CALLING, f"msg_{number}", tried=9, failed_at_us=0) for number in range(100)}
    assert len(times) > 50


def test_the_time_of_a_try_is_the_same_for_whoever_reckons() -> None:
    assert due_us(CALLING, "m", tried=3, failed_at_us=7) == due_us(CALLING, "m", tried=3, failed_at_us=7)


def test_bytespike_is_patient_for_half_an_hour_and_the_others_for_a_day() -> None:
    patience = {name: one.telling.delays_seconds for name, one in CONTRACTS.items() if one.telling is not None}
    assert patience == {
        "lemondata": DAY_SECONDS,
        "bytespike": (60, 120, 240, 480, 960),
        "chunkr": DAY_SECONDS,
        "beatra": DAY_SECONDS,
    }


# The task


def test_a_try_that_is_on_record_is_not_recorded_again() -> None:
    first = replace(called_back(1, error="503"), about=4)
    given(create(), start(), complete(), first).when(first).then()
    given(create(), start(), complete(), first).when(replace(first, attempt=2)).then(CallbackAttempted)
    given(create(), start(), complete(), first).when(replace(first, about=5)).then(CallbackAttempted)


def test_a_task_shows_the_last_event_that_was_posted_and_when_it_was_given_up() -> None:
    dead = replace(called_back(3, error="410"), about=4, gave_up=True)
    url = "https://acme.example/done"
    given(create(), start(), complete()).when(dead).leaving(
        callback=Callback(url=url, attempts=3, last_error="410", about=4, gave_up=True)
    )


def test_a_try_to_a_webhook_is_an_event_of_the_task_and_changes_nothing_of_it() -> None:
    hooked = replace(called_back(1), about=4, webhook="wh_1")
    before = given(create(), start(), complete())
    before.when(hooked).then(CallbackAttempted).leaving(callback=before.task.callback, version=before.task.version + 1)


# What an account arranges

ADD = AddWebhook(
    at_us=1, webhook_id="wh_1", contract="c", url="https://a.example/", tells=("completed",), sealed_secret="00"
)


def arranged(*commands: CallbackCommand) -> Arranged:
    now = NOTHING_ARRANGED
    for command in commands:
        for event in decide_callback(now, command):
            assert list(callback_violations(now, event)) == []
            now = evolve_arranged(now, event)
    return now


def test_a_webhook_is_added_changed_and_removed() -> None:
    added = arranged(ADD).webhook("wh_1")
    assert (added.url, added.enabled, added.created_at_us) == (ADD.url, True, 1)
    change = ChangeWebhook(at_us=2, webhook_id="wh_1", url="https://b.example/", enabled=False)
    changed = arranged(ADD, change).webhook("wh_1")
    assert (changed.url, changed.enabled, changed.tells, changed.sealed_secret) == (
        "https://b.example/",
        False,
        ("completed",),
        "00",
    )
    assert arranged(ADD, RemoveWebhook(at_us=3, webhook_id="wh_1")).webhooks == {}


def test_a_change_that_changes_nothing_is_no_event() -> None:
    same = ChangeWebhook(at_us=2, webhook_id="wh_1", url=ADD.url, tells=ADD.tells, enabled=True)
    assert decide_callback(arranged(ADD), same) == []
    assert decide_callback(arranged(ADD), ChangeWebhook(at_us=2, webhook_id="wh_1")) == []
    assert len(decide_callback(arranged(ADD), ChangeWebhook(at_us=2, webhook_id="wh_1", sealed_secret="01"))) == 1


def test_a_change_that_is_about_another_address_changes_nothing() -> None:
    gone = ChangeWebhook(at_us=2, webhook_id="wh_1", enabled=False, if_url=ADD.url)
    assert arranged(ADD, gone).webhooks["wh_1"].enabled is False
    moved = ChangeWebhook(at_us=2, webhook_id="wh_1", url="https://b.example/")
    assert decide_callback(arranged(ADD, moved), gone) == []


@pytest.mark.parametrize("command", [ChangeWebhook, RemoveWebhook])
def test_what_is_not_there_is_neither_changed_nor_removed(command: type[ChangeWebhook] | type[RemoveWebhook]) -> None:
    for name in ("wh_2", ""):
        with pytest.raises(UnknownWebhook):
            decide_callback(arranged(ADD), command(at_us=2, webhook_id=name))


def test_an_account_has_so_many_webhooks_and_no_more() -> None:
    full = arranged(*(AddWebhook(**{**asdict(ADD), "webhook_id": f"wh_{n}"}) for n in range(WEBHOOKS_MAX)))
    with pytest.raises(TooManyWebhooks):
        decide_callback(full, ADD)


def test_of_two_secrets_the_old_one_signs_until_it_is_time() -> None:
    rotated = arranged(RotateSecret(at_us=10, overlap_us=5))
    assert rotated.generations(14) == (2, 1)
    assert rotated.generations(15) == (2,)
    assert arranged().generations(0) == (1,)


AGAIN = Resend(at_us=5, task_id=TASK, about=4, webhook=None, reason="they were down")
BROKEN: dict[str, tuple[Sequence[CallbackCommand], CallbackEvent]] = {
    "added twice": ((ADD,), decide_callback(NOTHING_ARRANGED, ADD)[0]),
    "removed and not there": ((), WebhookRemoved(at_us=1, webhook_id="wh_1")),
    "changed and not there": (
        (),
        decide_callback(arranged(ADD), ChangeWebhook(at_us=2, webhook_id="wh_1", enabled=False))[0],
    ),
    "a number left out": ((), CallbackSecretRotated(at_us=1, generation=3, old_until_us=1)),
    "another's id": ((), CallbackResent(at_us=1, callback_id=callback_id(TASK, 5, None), task="x", about=4)),
}


@pytest.mark.parametrize("what", BROKEN)
def test_the_audit_finds(what: str) -> None:
    before, event = BROKEN[what]
    now = arranged(*before)
    assert len(list(callback_violations(now, event))) == 1
    evolve_arranged(now, event)  # which is total


def test_folding_is_evolving_one_by_one() -> None:
    commands = (ADD, AGAIN, RotateSecret(at_us=6, overlap_us=1))
    now, events = NOTHING_ARRANGED, list[CallbackEvent]()
    for command in commands:
        caused = decide_callback(now, command)
        events += caused
        now = fold_arranged(events)
    assert now == arranged(*commands)
    assert now.version == 3


# The audit


async def test_verify_finds_an_event_that_does_not_follow_or_does_not_belong() -> None:
    engine = MemoryEngine()
    log = CallbackLog(engine)
    await log.carry_out(ADD, account="acme", by="test")
    await log.carry_out(AGAIN, account="acme", by="test")
    assert (await audit(engine)).findings == ()
    stray = CallbackSecretRotated(at_us=9, generation=5, old_until_us=9)
    for stream, expected in ((callbacks_stream("acme"), 2), (callbacks_stream("other"), 0)):
        one = entry(stray, actor="test", recorded_at_us=9)
        await engine.commit([Append(stream=stream, account="acme", expected=expected, entries=(one,))])
    found = [(one.check, one.position, one.detail) for one in (await audit(engine)).findings]
    assert found == [
        (Check.CALLBACKS, 3, "secret number 5 follows 1"),
        (Check.CALLBACKS, 4, "callback-secret-rotated does not stand in the stream of account 'acme'"),
        (Check.CALLBACKS, 4, "secret number 5 follows 1"),
    ]


async def test_changes_of_two_processes_at_once_are_both_made() -> None:
    engine = MemoryEngine()
    logs = [CallbackLog(engine) for _ in range(4)]
    adds = [AddWebhook(**{**asdict(ADD), "webhook_id": f"wh_{n}"}) for n in range(4)]
    await asyncio.gather(*(log.carry_out(add, account="a", by="t") for log, add in zip(logs, adds, strict=True)))
    assert len((await logs[0].arranged("a")).webhooks) == 4
