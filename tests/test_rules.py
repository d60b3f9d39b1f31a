"""The rules: what every command does to a task in every status, and then sentence by sentence."""

from typing import get_args

import msgspec
import pytest
from msgspec import UNSET
from msgspec.structs import replace

from ledger.commands import Create, RequestCancel, TaskCommand
from ledger.errors import (
    AlreadyStarted,
    AmountExceeds,
    CancelNotRequested,
    CancelUnsupported,
    NotCancellable,
    NotDeletable,
    NotUpdatable,
    Refusal,
    TaskNotFound,
    UpdateUnchanged,
    WrongVersion,
)
from ledger.events import (
    CallbackAttempted,
    Cancelled,
    CancelRequested,
    Charged,
    Completed,
    Created,
    Deleted,
    Expired,
    Failed,
    Held,
    LateReported,
    Notice,
    Payload,
    Progressed,
    Refunded,
    Released,
    School,
    Stalled,
    Started,
    TaskEvent,
    Terms,
    UpdateRequested,
    UpdateReverted,
)
from ledger.task import LIVE, NO_TASK, TERMINAL, Callback, Problem, Run, Status, Task, fold
from tests.rules_dsl import (
    ACCOUNT,
    BEATRA,
    BYTESPIKE,
    CHUNKR,
    CREATED_US,
    DEADLINE,
    HOLD,
    ID,
    LEMONDATA,
    ON_SUCCESS,
    OPERATOR,
    PREPAID,
    STRANGER,
    at,
    called_back,
    cancel,
    charge,
    charged,
    complete,
    confirm,
    create,
    delete,
    expire,
    fail,
    given,
    held,
    like,
    progress,
    refund,
    released,
    stall,
    start,
    terms,
    update,
)

History = tuple[TaskCommand, ...]

RUNNING: History = (create(), start())
ASKED: History = (*RUNNING, cancel(BEATRA, reason="wrong prompt"))
COMPLETED: History = (*RUNNING, complete(4, output={"url": "https://cdn.example/1.mp4"}))
PARSED: History = (create(ON_SUCCESS, deadline=None), start(), complete(output={"pages": 3}))
UPDATING: History = (create(ON_SUCCESS), start(), complete(output={"pages": 3}), update())


# Every command in every status

STATUSES: dict[str, History] = {
    "absent": (),
    "queued": (create(),),
    "running": RUNNING,
    "asked to cancel": ASKED,
    "completed": COMPLETED,
    "failed": (*RUNNING, fail()),
    "cancelled": (create(), cancel()),
    "expired": (create(), expire()),
    "update queued": UPDATING,
    "update running": (*UPDATING, start()),
    "deleted": (*COMPLETED, delete()),
}
OVER = ("completed", "failed", "cancelled", "expired")
ENDED = (*OVER, "deleted")
ALIVE = ("queued", "running", "asked to cancel", "update queued", "update running")

COMMANDS: dict[str, TaskCommand] = {
    "create": create(),
    "start": start(),
    "progress": progress(40),
    "complete": complete(4),
    "fail": fail(),
    "confirm cancel": confirm(),
    "charge": charge(4),
    "refund": refund(1),
    "cancel by LemonData": cancel(LEMONDATA),
    "cancel by ByteSpike": cancel(BYTESPIKE),
    "cancel by Chunkr": cancel(CHUNKR),
    "cancel by beatra": cancel(BEATRA),
    "cancel by the operator": cancel(OPERATOR, account=None),
    "update": update("Auto"),
    "delete": delete(),
    "expire": expire(),
    "stall": stall(),
    "record callback": called_back(),
}

Cell = list[type[TaskEvent]] | type[Refusal] | type[AssertionError]


def over(cell: Cell, *, names: tuple[str, ...] = OVER) -> dict[str, Cell]:
    return dict.fromkeys(names, cell)


EXPECTED: dict[str, dict[str, Cell]] = {  # command, status: the events, or the refusal
    "create": {
        "absent": [Created, Held],
        **over(AssertionError, names=(*ALIVE, *ENDED)),
    },
    "start": {
        "absent": TaskNotFound,
        "queued": [Started],
        "running": [],
        "asked to cancel": [],
        **over([LateReported], names=ENDED),
        "update queued": [Started],
        "update running": [],
    },
    "progress": {
        "absent": TaskNotFound,
        "queued": [Started, Progressed],
        "running": [Progressed],
        "asked to cancel": [Progressed],
        **over([LateReported], names=ENDED),
        "update queued": [Started, Progressed],
        "update running": [Progressed],
    },
    "complete": {
        "absent": TaskNotFound,
        "queued": [Started, Completed, Charged, Released],
        "running": [Completed, Charged, Released],
        "asked to cancel": [Completed, Charged, Released],
        **over([LateReported], names=ENDED),
        "update queued": [Started, Completed, Charged],
        "update running": [Completed, Charged],
    },
    "fail": {
        "absent": TaskNotFound,
        "queued": [Started, Failed, Released],
        "running": [Failed, Released],
        "asked to cancel": [Failed, Released],
        **over([LateReported], names=ENDED),
        "update queued": [UpdateReverted],
        "update running": [UpdateReverted],
    },
    "confirm cancel": {
        "absent": TaskNotFound,
        "queued": CancelNotRequested,
        "running": CancelNotRequested,
        "asked to cancel": [Cancelled, Released],
        **over([LateReported], names=ENDED),
        "update queued": CancelNotRequested,
        "update running": CancelNotRequested,
    },
    "charge": {
        "absent": TaskNotFound,
        "queued": [Started, Charged],
        "running": [Charged],
        "asked to cancel": [Charged],
        **over([LateReported], names=ENDED),
        "update queued": AmountExceeds,  # nothing is held
        "update running": AmountExceeds,
    },
    "refund": {
        "absent": TaskNotFound,
        "queued": AmountExceeds,  # nothing is charged
        "running": AmountExceeds,
        "asked to cancel": AmountExceeds,
        "completed": [Refunded],
        "failed": AmountExceeds,
        "cancelled": AmountExceeds,
        "expired": AmountExceeds,
        "update queued": [Refunded],  # of what the first run cost
        "update running": [Refunded],
        "deleted": [Refunded],
    },
    "cancel by LemonData": {
        "absent": TaskNotFound,
        "queued": [CancelRequested, Cancelled, Released],
        "running": NotCancellable,
        "asked to cancel": NotCancellable,
        **over(NotCancellable),
        "update queued": [CancelRequested, UpdateReverted],
        "update running": NotCancellable,
        "deleted": TaskNotFound,
    },
    "cancel by ByteSpike": {
        "absent": TaskNotFound,
        "queued": [CancelRequested, Cancelled, Released],
        "running": [CancelRequested, Cancelled, Released],
        "asked to cancel": [Cancelled, Released],
        **over([]),
        "update queued": [CancelRequested, UpdateReverted],
        "update running": [CancelRequested, UpdateReverted],
        "deleted": TaskNotFound,
    },
    "cancel by Chunkr": {
        "absent": TaskNotFound,
        "queued": [CancelRequested, Cancelled, Released],
        "running": NotCancellable,
        "asked to cancel": NotCancellable,
        **over(NotCancellable),
        "update queued": [CancelRequested, UpdateReverted],
        "update running": NotCancellable,
        "deleted": TaskNotFound,
    },
    "cancel by beatra": {
        "absent": TaskNotFound,
        "queued": [CancelRequested, Cancelled, Released],
        "running": [CancelRequested],
        "asked to cancel": [],
        **over([]),
        "update queued": [CancelRequested, UpdateReverted],
        "update running": [CancelRequested],
        "deleted": TaskNotFound,
    },
    "cancel by the operator": {
        "absent": TaskNotFound,
        "queued": [CancelRequested, Cancelled, Released],
        "running": [CancelRequested],
        "asked to cancel": [],
        **over([]),
        "update queued": [CancelRequested, UpdateReverted],
        "update running": [CancelRequested],
        "deleted": TaskNotFound,
    },
    "update": {
        "absent": TaskNotFound,
        **over(NotUpdatable, names=(*ALIVE, *OVER)),  # a hold covers one run; see the sentences below
        "deleted": TaskNotFound,
    },
    "delete": {
        "absent": TaskNotFound,
        **over(NotDeletable, names=ALIVE),
        **over([Deleted]),
        "deleted": TaskNotFound,
    },
    "expire": {
        "absent": TaskNotFound,
        "queued": [Expired, Released],
        "running": [Expired, Released],
        "asked to cancel": [Expired, Released],
        **over([], names=ENDED),
        "update queued": [UpdateReverted],
        "update running": [UpdateReverted],
    },
    "stall": {
        "absent": TaskNotFound,
        "queued": [],
        "running": [Stalled],
        "asked to cancel": [Stalled],
        **over([], names=ENDED),
        "update queued": [],
        "update running": [Stalled],
    },
    "record callback": {
        "absent": TaskNotFound,
        **over([CallbackAttempted], names=(*ALIVE, *ENDED)),
    },
}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_answer_in_every_status(command: str, status: str) -> None:
    before, cell = given(*STATUSES[status]), EXPECTED[command][status]
    if isinstance(cell, list):
        before.when(COMMANDS[command]).then(*cell)
    elif issubclass(cell, Refusal):
        before.when(COMMANDS[command]).refused(cell)
    else:
        with pytest.raises(cell):
            before.when(COMMANDS[command])


def test_the_table_has_every_command_every_policy_and_every_status() -> None:
    assert {type(command) for command in COMMANDS.values()} == set(get_args(TaskCommand))
    cancels = [command for command in COMMANDS.values() if isinstance(command, RequestCancel)]
    assert {command.policy for command in cancels} == {LEMONDATA, BYTESPIKE, CHUNKR, BEATRA, OPERATOR}
    assert {given(*history).task.status for history in STATUSES.values()} == set(Status)
    assert EXPECTED.keys() == COMMANDS.keys()
    assert all(row.keys() == STATUSES.keys() for row in EXPECTED.values())


def test_a_status_is_either_absent_or_live_or_terminal() -> None:
    assert {Status.ABSENT, *LIVE, *TERMINAL} == set(Status)
    assert len(LIVE) + len(TERMINAL) + 1 == len(Status)


# Creation


def test_a_created_task_is_queued_and_remembers_everything_it_was_created_with() -> None:
    command = create()
    answer = given().when(command).then(Created, held(10)).leaving(status=Status.QUEUED, version=2)
    same = set(Task.__struct_fields__) & set(Create.__struct_fields__)
    assert same >= {"task_id", "account", "contract", "capability", "model", "resolved_model", "provider"}
    assert {name: getattr(answer.task, name) for name in same} == {name: getattr(command, name) for name in same}
    answer.leaving(input={"prompt": "a fjord"}, callback=Callback(url="https://acme.example/done"))
    answer.leaving(created_at_us=CREATED_US, updated_at_us=CREATED_US, queued_at_us=CREATED_US, number=1)


def test_a_task_created_with_nothing_to_erase_has_no_payload() -> None:
    bare = replace(create(), input={}, metadata={}, callback_url=None)
    given().when(bare).then(like(Created, payload=UNSET), Held).leaving(input={}, metadata={}, callback=None)


def test_all_that_a_customer_may_want_erased_lies_in_the_payload() -> None:
    content = Payload(input={"prompt": "a fjord"}, metadata={"order": 4711})
    given().when(create()).then(like(Created, payload=content), Held)


# Starting and going on


def test_a_start_names_the_worker_and_the_providers_task() -> None:
    asked = given(create()).when(start("w1", provider_task_id="cgt-1", second=7))
    asked.then(Started(at_us=at(7), worker="w1", provider_task_id="cgt-1"))
    asked.leaving(status=Status.RUNNING, started_at_us=at(7), worker="w1", provider_task_id="cgt-1")


def test_starting_twice_changes_nothing() -> None:
    given(*RUNNING).when(start("w1", second=9)).then().leaving(started_at_us=at(1))
    given(*RUNNING).when(start(None, second=9)).then().leaving(worker="w1")


def test_another_worker_cannot_start_a_task_that_one_has() -> None:
    given(*RUNNING).when(start("w2")).refused(AlreadyStarted, worker="w1")


def test_a_worker_whose_progress_overtakes_its_start_has_the_task_from_its_start_on() -> None:
    overtaken = (create(), progress(40, second=3))
    late = start("w1", second=5)
    given(*overtaken).when(late).then(Started).leaving(worker="w1", started_at_us=at(3))
    given(*overtaken, late).when(start("w2")).refused(AlreadyStarted, worker="w1")


@pytest.mark.parametrize(
    "report", [progress(40), complete(), fail(), charge(1)], ids=lambda report: type(report).__name__
)
def test_whatever_a_queued_task_reports_it_must_have_started_by_then(report: TaskCommand) -> None:
    answer = given(create()).when(replace(report, at_us=at(5)))
    assert answer.events[0] == Started(at_us=at(5), implied=True)
    answer.leaving(started_at_us=at(5), worker=None)


def test_progress_never_falls() -> None:
    risen = (*RUNNING, progress(40, stage="render", message="frame 40"))
    given(*risen).when(progress(30, stage="encode")).then(Progressed).leaving(percent=40, stage="encode")
    given(*risen).when(progress(41)).then(Progressed).leaving(percent=41)


def test_progress_keeps_what_it_does_not_mention() -> None:
    risen = (*RUNNING, progress(40, stage="render", message="frame 40"))
    given(*risen).when(progress(None, message="frame 41")).then(
        Progressed(at_us=at(2), payload=Payload(message="frame 41"))
    ).leaving(percent=40, stage="render", message="frame 41")
    given(*risen).when(progress(50)).then(Progressed).leaving(stage="render", message="frame 40")


def test_progress_that_tells_nothing_new_is_not_recorded() -> None:
    risen = (*RUNNING, progress(40, stage="render", message="frame 40"))
    for again in (progress(40, stage="render", message="frame 40"), progress(20), progress(None)):
        given(*risen).when(again).then()
    given(create()).when(progress(None)).then(Started)


def test_nought_percent_is_told_once() -> None:
    given(*RUNNING).when(progress(0)).then(Progressed).leaving(percent=0)
    given(*RUNNING, progress(0)).when(progress(0)).then()


# Outcomes


def test_a_completion_brings_output_usage_warnings_and_all_of_the_progress() -> None:
    notice = Notice(code="clipped", message="only 12 seconds")
    done = complete(output={"url": "u"}, warnings=(notice,), second=8)
    answer = given(*RUNNING, progress(40)).when(done)
    answer.then(
        Completed(at_us=at(8), payload=Payload(output={"url": "u"}, warnings=(notice,)), usage={"seconds": 5}),
        charged(10),
    )
    answer.leaving(status=Status.COMPLETED, finished_at_us=at(8), percent=100, output={"url": "u"})
    answer.leaving(usage={"seconds": 5}, warnings=(notice,), problem=None)


def test_a_completion_without_output_has_no_payload() -> None:
    given(*RUNNING).when(complete()).then(like(Completed, payload=UNSET), charged(10)).leaving(output=None)


def test_a_failure_says_why_and_whether_trying_again_may_help() -> None:
    answer = given(*RUNNING, progress(40)).when(fail(second=8))
    failed = Failed(at_us=at(8), payload=Payload(message="out of memory"), code="provider_error", retryable=True)
    answer.then(failed, released(10)).leaving(
        status=Status.FAILED,
        finished_at_us=at(8),
        percent=40,
        problem=Problem(code="provider_error", message="out of memory", retryable=True),
    )


def test_a_task_that_completes_although_it_was_asked_to_stop_has_completed() -> None:
    given(*ASKED).when(complete(second=8)).then(Completed, charged(10)).leaving(
        status=Status.COMPLETED, cancel_requested_at_us=at(3), finished_at_us=at(8)
    )


# Reports that come late

LATE: list[tuple[TaskCommand, LateReported]] = [
    (start(), LateReported(at_us=at(1), reported="started")),
    (
        progress(90, message="nearly"),
        LateReported(at_us=at(2), payload=Payload(message="nearly"), reported="progressed", percent=90),
    ),
    (
        complete(7, output={"url": "u"}),
        LateReported(
            at_us=at(3),
            payload=Payload(output={"url": "u"}),
            reported="completed",
            usage={"seconds": 5},
            claimed_micros=7_000_000,
        ),
    ),
    (complete(), LateReported(at_us=at(3), reported="completed", usage={"seconds": 5})),
    (
        fail(2),
        LateReported(
            at_us=at(3),
            payload=Payload(message="out of memory"),
            reported="failed",
            code="provider_error",
            claimed_micros=2_000_000,
        ),
    ),
    (confirm(1), LateReported(at_us=at(4), reported="cancelled", claimed_micros=1_000_000)),
    (
        charge(3, reason="extra frames"),
        LateReported(
            at_us=at(2), payload=Payload(message="extra frames"), reported="charged", claimed_micros=3_000_000
        ),
    ),
]


@pytest.mark.parametrize("status", ENDED)
@pytest.mark.parametrize(("report", "evidence"), LATE)
def test_a_late_report_is_kept_as_evidence_and_changes_nothing(
    report: TaskCommand, evidence: LateReported, status: str
) -> None:
    before = given(*STATUSES[status])
    kept = replace(evidence, payload=UNSET) if status == "deleted" else evidence  # no content after its deletion
    after = before.when(report).then(kept).task
    assert after == replace(before.task, version=before.task.version + 1, late_reports=1)


def test_a_late_report_keeps_the_time_of_its_source() -> None:
    old = replace(fail(second=30), effective_at_us=at(2))
    given(*RUNNING, complete(second=8)).when(old).then(like(LateReported, at_us=at(2)))


def test_a_late_report_is_never_of_the_future() -> None:
    ahead = replace(fail(second=30), effective_at_us=at(99))
    given(*RUNNING, complete(second=8)).when(ahead).then(like(LateReported, at_us=at(30)))


def test_the_first_outcome_wins_however_often_others_are_reported() -> None:
    once = (*RUNNING, complete(4), fail(), complete(9), confirm(), start("w2"))
    answer = given(*once).when(fail()).then(LateReported)
    answer.leaving(status=Status.COMPLETED, late_reports=5, charged=4, released=6, held=0)


# Cancel


def test_a_cancel_at_once_takes_effect_with_the_request() -> None:
    answer = given(*RUNNING).when(cancel(BYTESPIKE, reason="wrong prompt", second=9))
    answer.then(
        CancelRequested(at_us=at(9), payload=Payload(message="wrong prompt")),
        Cancelled(at_us=at(9), confirmed=False),
        released(10),
    )
    answer.leaving(status=Status.CANCELLED, cancel_requested_at_us=at(9), finished_at_us=at(9), held=0)


def test_a_running_task_that_is_only_asked_keeps_its_hold_until_the_worker_confirms() -> None:
    asked = given(*RUNNING).when(cancel(BEATRA, second=9)).then(CancelRequested(at_us=at(9)))
    asked.leaving(status=Status.RUNNING, cancel_requested_at_us=at(9), held=10, finished_at_us=None)
    given(*RUNNING, cancel(BEATRA, second=9)).when(confirm(second=12)).then(
        Cancelled(at_us=at(12), confirmed=True), released(10)
    ).leaving(status=Status.CANCELLED, cancel_requested_at_us=at(9), finished_at_us=at(12))


def test_asking_again_keeps_the_first_request() -> None:
    given(*ASKED).when(cancel(BEATRA, second=30)).then().leaving(cancel_requested_at_us=at(3))
    given(*ASKED).when(cancel(BYTESPIKE, second=30)).then(Cancelled, released(10)).leaving(cancel_requested_at_us=at(3))


def test_a_refused_cancel_says_in_which_status_the_task_is() -> None:
    given(*RUNNING).when(cancel(LEMONDATA)).refused(NotCancellable, status=Status.RUNNING)
    given(*COMPLETED).when(cancel(CHUNKR)).refused(NotCancellable, status=Status.COMPLETED)


@pytest.mark.parametrize(("history", "kept"), [((create(),), True), (RUNNING, True), (COMPLETED, False)])
def test_a_provider_that_cannot_cancel_refuses_in_every_status_and_the_wish_is_evidence_while_the_task_goes_on(
    history: History, *, kept: bool
) -> None:
    sora = (replace(create(), terms=terms(School.HOLD, cancellable=False)), *history[1:])
    wish = CancelRequested(at_us=at(9), payload=Payload(message="enough"), unsupported=True)
    asked = cancel(LEMONDATA, reason="enough", second=9)
    evidence = (wish,) if kept else ()
    given(*sora).when(asked).refused(CancelUnsupported, model="seedance-2.0", evidence=evidence)


def test_the_wish_to_cancel_what_cannot_be_cancelled_is_kept_once_and_leaves_the_task_as_it_was() -> None:
    sora = (create(terms(School.HOLD, cancellable=False)), start())
    wish = CancelRequested(at_us=at(9), unsupported=True)
    before, after = given(*sora).task, given(*sora, wish).task
    assert after == replace(before, version=before.version + 1, cancel_wished=True)
    given(*sora, wish).when(cancel(LEMONDATA)).refused(CancelUnsupported, evidence=())
    given(*sora, wish).when(confirm()).refused(CancelNotRequested, status=Status.RUNNING)


def test_only_a_contract_that_needs_support_asks_for_it() -> None:
    given(create(terms(School.HOLD, cancellable=False))).when(cancel(BYTESPIKE)).then(
        CancelRequested, Cancelled, released(10)
    )


def test_a_worker_cannot_confirm_a_cancel_that_nobody_asked_for() -> None:
    given(create()).when(confirm()).refused(CancelNotRequested, status=Status.QUEUED)
    given(*RUNNING).when(confirm()).refused(CancelNotRequested, status=Status.RUNNING)


# Who may ask, and what is checked first


@pytest.mark.parametrize("history", [(create(),), RUNNING, COMPLETED, PARSED])
@pytest.mark.parametrize("command", [cancel(account=STRANGER), update(account=STRANGER), delete(account=STRANGER)])
def test_another_accounts_task_is_not_found(history: History, command: TaskCommand) -> None:
    given(*history).when(command).refused(TaskNotFound, foreign=True)


@pytest.mark.parametrize("account", [ACCOUNT, None])
def test_a_deleted_task_is_found_by_nobody(account: str | None) -> None:
    given(*COMPLETED, delete()).when(cancel(account=account)).refused(TaskNotFound, foreign=False)


def test_an_absent_task_is_nobodys() -> None:
    given().when(cancel(account=STRANGER)).refused(TaskNotFound, foreign=False)


def test_a_strangers_cancel_leaves_no_evidence() -> None:
    sora = create(terms(School.HOLD, cancellable=False))
    given(sora).when(cancel(LEMONDATA, account=STRANGER)).refused(TaskNotFound, evidence=())


@pytest.mark.parametrize("expected", [0, 1, 4])
def test_a_command_for_another_version_is_refused_before_anything_else_is_asked(expected: int) -> None:
    stale = replace(cancel(LEMONDATA, account=STRANGER), expected_version=expected)
    given(*RUNNING).when(stale).refused(WrongVersion, expected=expected, actual=3)


def test_a_task_that_does_not_exist_has_no_wrong_version() -> None:
    given().when(replace(cancel(), expected_version=3)).refused(TaskNotFound)


def test_a_command_for_the_very_version_is_carried_out() -> None:
    given(*RUNNING).when(replace(cancel(), expected_version=3)).then(CancelRequested, Cancelled, Released)


# Updates


@pytest.mark.parametrize("history", [PARSED, (*PARSED[:-1], fail())])
def test_a_task_billed_on_success_that_completed_or_failed_can_be_updated(history: History) -> None:
    answer = given(*history).when(update("All", second=60))
    answer.then(UpdateRequested(at_us=at(60), payload=Payload(input={"ocr": "All"})))
    answer.leaving(status=Status.QUEUED, number=2, queued_at_us=at(60), input={"ocr": "All"})
    answer.leaving(started_at_us=None, finished_at_us=None, percent=None, problem=None, usage=None)


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING, Status.CANCELLED, Status.EXPIRED])
def test_in_any_other_status_there_is_nothing_to_update(status: Status) -> None:
    histories: dict[Status, History] = {
        Status.QUEUED: (create(ON_SUCCESS),),
        Status.RUNNING: (create(ON_SUCCESS), start()),
        Status.CANCELLED: (create(ON_SUCCESS), cancel()),
        Status.EXPIRED: (create(ON_SUCCESS), expire()),
    }
    given(*histories[status]).when(update()).refused(NotUpdatable, status=status)


@pytest.mark.parametrize("paid_terms", [HOLD, PREPAID])
def test_a_hold_or_a_prepayment_covers_one_run(paid_terms: Terms) -> None:
    paid = (create(paid_terms), start(), complete())
    given(*paid).when(update()).refused(NotUpdatable, status=Status.COMPLETED)


def test_an_update_must_change_the_configuration() -> None:
    same = replace(update(), input={"prompt": "a fjord"})
    given(*PARSED).when(same).refused(UpdateUnchanged)
    given(*PARSED, update("All"), start(), complete()).when(update("All")).refused(UpdateUnchanged)


def test_the_earlier_result_stays_readable_while_the_update_runs() -> None:
    running = given(*PARSED, update(), start(second=6)).when(progress(40, second=7))
    running.leaving(output={"pages": 3}, status=Status.RUNNING, started_at_us=at(6), percent=40)


def test_a_completed_update_replaces_the_result_and_is_charged_as_a_run_of_its_own() -> None:
    answer = given(*PARSED, update(), start()).when(complete(2, output={"pages": 4}, second=70))
    answer.then(Completed, charged(2)).leaving(status=Status.COMPLETED, charged=12, updating=None)
    answer.leaving(output={"pages": 4}, input={"ocr": "All"}, finished_at_us=at(70), number=2)


REVERTING: list[tuple[TaskCommand, UpdateReverted]] = [
    (
        fail(second=70),
        UpdateReverted(at_us=at(70), payload=Payload(message="out of memory"), cause="failed", code="provider_error"),
    ),
    (expire(), UpdateReverted(at_us=at(DEADLINE), cause="expired")),
    (cancel(BYTESPIKE, second=70), UpdateReverted(at_us=at(70), cause="cancelled")),
    (confirm(second=70), UpdateReverted(at_us=at(70), cause="cancelled")),
]


@pytest.mark.parametrize("first", [complete(output={"pages": 3}), fail()])
@pytest.mark.parametrize(("command", "reverted"), REVERTING)
def test_an_update_without_a_result_leaves_the_task_as_it_stood_before(
    command: TaskCommand, reverted: UpdateReverted, first: TaskCommand
) -> None:
    before = given(create(ON_SUCCESS), start(), first)
    updating = (create(ON_SUCCESS), start(), first, update(), start(), progress(80), cancel(BEATRA))
    after = given(*updating).when(command).then(reverted).task
    assert after == replace(
        before.task,
        version=after.version,
        updated_at_us=reverted.at_us,
        run=replace(before.task.run, number=2),
    )


def test_a_second_update_after_a_reverted_one_is_a_third_run() -> None:
    again = (*PARSED, update("All"), cancel(), update("Auto"), start())
    answer = given(*again).when(complete(3)).then(Completed, like(Charged, key="charge:settle:3"))
    answer.leaving(number=3, charged=13, input={"ocr": "Auto"})


# Deletion


def test_deleting_a_task_empties_its_content_and_keeps_its_facts_and_its_money() -> None:
    answer = given(*COMPLETED).when(delete()).then(Deleted(at_us=at(9)))
    answer.leaving(deleted=True, input={}, output=None, message=None, metadata={})
    answer.leaving(status=Status.COMPLETED, charged=4, released=6, account=ACCOUNT, percent=100)
    assert b"fjord" not in msgspec.json.encode(answer.task)
    assert b"cdn.example" not in msgspec.json.encode(answer.task)


def test_deleting_a_failed_task_keeps_the_code_and_drops_the_words() -> None:
    broken = (*RUNNING, progress(message="secret"), fail())
    given(*broken).when(delete()).then(Deleted).leaving(
        problem=Problem(code="provider_error", message="", retryable=True), message=None
    )


def test_only_a_task_that_is_over_can_be_deleted() -> None:
    given(create()).when(delete()).refused(NotDeletable, status=Status.QUEUED)
    given(*ASKED).when(delete()).refused(NotDeletable, status=Status.RUNNING)


# What the sweeps find


def test_a_task_expires_at_its_deadline_and_not_before() -> None:
    given(*RUNNING).when(expire(second=DEADLINE - 1)).then()
    given(*RUNNING).when(expire(second=DEADLINE)).then(Expired(at_us=at(DEADLINE)), released(10)).leaving(
        status=Status.EXPIRED, finished_at_us=at(DEADLINE)
    )


def test_a_task_without_a_deadline_never_expires() -> None:
    given(create(deadline=None)).when(expire(second=10**9)).then()


def test_silence_is_no_verdict() -> None:
    answer = given(*RUNNING).when(stall(silent_since=5, second=600))
    answer.then(Stalled(at_us=at(600), silent_since_us=at(5)))
    answer.leaving(status=Status.RUNNING, stalled_since_us=at(5), held=10)


def test_a_stalled_task_is_marked_once_until_it_is_heard_of_again() -> None:
    silent = (*RUNNING, progress(40), stall())
    given(*silent).when(stall(silent_since=9)).then().leaving(stalled_since_us=at(2))
    given(*silent).when(progress(40)).then(Progressed).leaving(stalled_since_us=None)
    given(*silent, progress(40)).when(stall(silent_since=700, second=900)).then(Stalled)


@pytest.mark.parametrize("outcome", [complete(), fail(), cancel(), expire()])
def test_a_stalled_task_still_comes_to_its_outcome(outcome: TaskCommand) -> None:
    answer = given(*RUNNING, stall()).when(outcome).leaving(stalled_since_us=None, held=0)
    assert answer.task.status in TERMINAL


def test_callbacks_are_counted_until_one_is_delivered() -> None:
    url = "https://acme.example/done"
    tried = given(*COMPLETED).when(called_back(1, error="503", second=20))
    tried.then(CallbackAttempted(at_us=at(20), attempt=1, delivered=False, error="503"))
    tried.leaving(callback=Callback(url=url, attempts=1, last_error="503"))
    given(*COMPLETED, called_back(1, error="503")).when(called_back(2, second=30)).then(
        CallbackAttempted(at_us=at(30), attempt=2, delivered=True)
    ).leaving(callback=Callback(url=url, attempts=2, delivered_at_us=at(30)), updated_at_us=at(3))


# Times


def test_a_report_takes_the_time_of_its_source() -> None:
    told = replace(complete(second=30), effective_at_us=at(8))
    given(*RUNNING).when(told).then(like(Completed, at_us=at(8)), like(Charged, at_us=at(8)))


def test_nothing_happens_before_the_tasks_last_fact_or_in_the_future() -> None:
    risen = (*RUNNING, progress(40, second=9))
    given(*risen).when(replace(complete(second=30), effective_at_us=at(8))).leaving(finished_at_us=at(9))
    given(*risen).when(replace(complete(second=30), effective_at_us=at(31))).leaving(finished_at_us=at(30))


@pytest.mark.parametrize(
    "command", [complete(), fail(), cancel(), charge(1), progress(90), stall(second=0), called_back(second=0)]
)
def test_times_of_a_task_never_run_backwards_whatever_the_clock_does(command: TaskCommand) -> None:
    answer = given(*RUNNING, progress(40, second=9)).when(replace(command, at_us=at(0)))
    assert {event.at_us for event in answer.events} == {at(9)}
    assert answer.task.updated_at_us == at(9)


@pytest.mark.parametrize(
    ("history", "command"),
    [
        ((), create(ON_SUCCESS)),
        ((create(),), start(second=50)),
        (RUNNING, progress(second=50)),
        (RUNNING, complete(0, second=50)),
        (RUNNING, fail(second=50)),
        ((create(ON_SUCCESS), start()), fail(second=50)),
        (RUNNING, cancel(BEATRA, second=50)),
        ((create(ON_SUCCESS),), cancel(BYTESPIKE, second=50)),
        (RUNNING, replace(charge(1), at_us=at(50))),
        (COMPLETED, replace(refund(1), at_us=at(50))),
        (PARSED, update(second=50)),
        ((*PARSED, update()), fail(second=50)),
        (PARSED, replace(delete(), at_us=at(50))),
        (RUNNING, expire()),
        (RUNNING, stall()),
    ],
)
def test_a_change_is_the_tasks_latest_update(history: History, command: TaskCommand) -> None:
    given(*history).when(command).leaving(updated_at_us=command.at_us)


# The fold


def test_the_words_for_the_statuses_stay_as_they_are() -> None:
    words = ["absent", "queued", "running", "completed", "failed", "cancelled", "expired"]
    assert [status.value for status in Status] == words


def test_what_is_left_out_of_a_stored_task_means_that_nothing_is_known() -> None:
    assert msgspec.json.encode(NO_TASK) == b"{}"
    known = {name: fact for name, fact in msgspec.structs.asdict(NO_TASK).items() if fact}
    nothing = Terms(school=School.ON_SUCCESS, rate_version="", estimated_micros=0)
    assert known == {"task_id": bytes(16), "status": Status.ABSENT, "terms": nothing, "run": Run()}
    assert not any(fact for name, fact in msgspec.structs.asdict(Run()).items() if name != "number")


def test_events_whose_payload_was_erased_still_fold() -> None:
    broken = given(create(), Failed(at_us=at(3), code="provider_error")).task
    assert broken.run.problem == Problem(code="provider_error", message="", retryable=False)
    assert given(*PARSED, UpdateRequested(at_us=at(9))).task.run.input == {}


def test_a_task_is_the_fold_of_its_events() -> None:
    first = given().when(create())
    second = given(*first.events).when(start())
    third = given(*first.events, *second.events).when(complete(4))
    assert fold([*first.events, *second.events, *third.events], ID) == third.task
    assert fold([], ID).status is Status.ABSENT
