"""What holds for every contract alike: a word for everything, one task read through each, and whose request it is."""

import ast
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from api import refusals
from api.contracts import CONTRACTS, beatra, bytespike, chunkr, lemondata
from api.contracts.shape import Cancel, Refused
from api.refusals import Forbidden, Invalid, MethodNotAllowed, RateLimited, Standing, TooLarge
from ledger.commands import RequestCancel
from ledger.errors import (
    InsufficientCredits,
    KeyReused,
    Overloaded,
    Refusal,
    StorageError,
    TooManyTasks,
    UnknownModel,
)
from ledger.ids import TaskId
from ledger.keys import Role
from ledger.rules import decide
from ledger.task import NO_TASK, Status, Task, fold
from tests.builders import ENGINES
from tests.http import (
    ACCOUNT,
    COMPLETED,
    CONFIRMED,
    CREATED_US,
    DAY_SECONDS,
    FAILED,
    STARTED,
    STRANGER,
    Call,
    CancelAsked,
    DeadlinePassed,
    DeleteAsked,
    History,
    Later,
    Reply,
    Service,
    Way,
    both_ways,
    cancel,
    query,
    shown,
    spell,
)
from tests.processes import ROOT
from tests.rules_dsl import create

VENDORS = tuple(CONTRACTS)
MODULES = {"lemondata": lemondata, "bytespike": bytespike, "chunkr": chunkr, "beatra": beatra}
PAIRS = list(product(VENDORS, VENDORS))
STATUSES = [status for status in Status if status is not Status.ABSENT]

at_both_mounts = pytest.mark.parametrize("mount", ["/{contract}", ""], ids=["prefix", "root"])
every_contract = pytest.mark.parametrize("contract", VENDORS)
on_every_engine = pytest.mark.parametrize("service", ENGINES, indirect=True)


def code(reply: Reply) -> str:
    """What the answer calls the refusal: Chunkr has no codes, only its text."""
    if reply.headers["Content-Type"].startswith("text/plain"):
        return reply.body
    problem: dict[str, Any] = reply.json()
    found: str = problem.get("error", problem)["code"]
    return found


# A word for everything


@every_contract
def test_every_status_has_a_word(contract: str) -> None:
    assert set(MODULES[contract].STATUSES) == set(STATUSES)


def test_every_contract_has_a_word_list() -> None:
    assert set(MODULES) == set(CONTRACTS)


def over_http() -> set[type[Refusal]]:
    """The refusals that only exist over HTTP."""
    return {
        found
        for found in vars(refusals).values()
        if isinstance(found, type) and issubclass(found, Refusal) and found is not Refusal
    }


def by_the_rules(contract: str) -> dict[type[Refusal], Refusal]:
    """The refusals of this contract's cancel, out of all that it can be asked of."""
    policies = {one.policy for one in CONTRACTS[contract].operations if isinstance(one, Cancel)}
    found = {}
    for task, policy, account in product(tasks(), policies, (ACCOUNT, STRANGER)):
        asked = RequestCancel(task_id=task.task_id, at_us=CREATED_US, actor="k", account=account, policy=policy)
        try:
            decide(task, asked)
        except Refusal as refusal:
            found[type(refusal)] = refusal
    return found


def tasks() -> Iterator[Task]:
    """A task in every status, cancellable and not, deleted and not; and none."""
    yield NO_TASK
    created = decide(NO_TASK, create())
    for status, cancellable, deleted in product(STATUSES, (True, False), (False, True)):
        task = fold(created, NO_TASK.task_id)
        yield replace(task, status=status, terms=replace(task.terms, cancellable=cancellable), deleted=deleted)


SAMPLES: dict[type[Refusal], Refusal] = {
    Invalid: Invalid("it is wrong", param="a.b"),
    Forbidden: Forbidden("client", needed=["worker"]),
    MethodNotAllowed: MethodNotAllowed(("GET",)),
    TooLarge: TooLarge(1),
    KeyReused: KeyReused("cancel", "k", fingerprint="f", task=None),
    Overloaded: Overloaded(retry_after_seconds=1),
    RateLimited: RateLimited(Standing(1, 0, 1), retry_after_seconds=1),
    UnknownModel: UnknownModel("m"),
    TooManyTasks: TooManyTasks(live_tasks=5, tasks_max=5, position=1),
    InsufficientCredits: InsufficientCredits(
        asked_micros=2, limit_micros=1, granted_micros=None, exposure_micros=0, position=1
    ),
}
"""Those that carry facts; and those that the ledger adds to the rules' own."""


def reaching(contract: str) -> dict[type[Refusal], Refusal]:
    """Every refusal that a client of *contract* can meet."""
    plain = {kind: kind() for kind in over_http() - SAMPLES.keys()}
    return plain | SAMPLES | by_the_rules(contract)


@every_contract
def test_every_refusal_that_a_client_can_meet_has_a_word(contract: str) -> None:
    for kind, refusal in reaching(contract).items():
        assert kind in MODULES[contract].REFUSALS, kind
        for method in ("GET", "POST", "DELETE"):
            answer = CONTRACTS[contract].refuse(refusal, Refused(method, "req_1"))
            assert 400 <= answer.status < 600
            assert answer.body
            assert b"{reason}" not in answer.body
            assert b"{status}" not in answer.body


def test_the_rules_refuse_what_they_should() -> None:
    names = {contract: {kind.__name__ for kind in by_the_rules(contract)} for contract in VENDORS}
    assert names == {
        "lemondata": {"TaskNotFound", "CancelUnsupported", "NotCancellable"},
        "bytespike": {"TaskNotFound"},
        "chunkr": {"TaskNotFound", "NotCancellable"},
        "beatra": {"TaskNotFound"},
    }


@every_contract
def test_only_faults_of_ours_are_answered_with_a_5xx(contract: str) -> None:
    table = {kind.__name__: row[0] for kind, row in MODULES[contract].REFUSALS.items()}
    assert {name for name, status in table.items() if status >= 500} == {"Overloaded", "Unavailable", "Broken"}


FORMS_OF_KEYS: list[dict[str, str]] = [{}, {"Authorization": "Bearer k"}, {"Authorization": "k"}, {"x-api-key": "k"}]


class Spied(dict[str, str]):
    """Headers that note which of them are read."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__(headers)
        self.read: set[str] = set()

    def get(self, name: str, default: str | None = None) -> Any:  # type: ignore[override]  # noqa: ANN401 - as dict's
        self.read.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> str:
        self.read.add(name)
        return super().__getitem__(name)


@every_contract
def test_a_contract_names_every_header_that_it_reads_a_key_from(contract: str) -> None:
    for headers in map(Spied, FORMS_OF_KEYS):
        CONTRACTS[contract].token(headers)
        assert headers.read <= set(CONTRACTS[contract].key_headers)


@pytest.mark.parametrize("folder", ["ledger", "projections", "api"])
def test_no_vendor_has_a_name_outside_the_files_of_the_contracts(folder: str) -> None:
    """So that one more is one more file, and a row in the table."""
    files = [path for path in (ROOT / folder).rglob("*.py") if path.parent.name != "contracts"]
    assert files
    for path in files:
        texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not texts & set(CONTRACTS), path


# One task, four contracts

EVERYWHERE: dict[str, tuple[History, tuple[str, str, str, str]]] = {
    "queued": ((), ("pending", "pending", "Starting", "queued")),
    "running": ((STARTED,), ("processing", "running", "Processing", "running")),
    "running, asked": ((STARTED, CancelAsked()), ("processing", "running", "Processing", "running")),
    "completed": ((COMPLETED,), ("completed", "completed", "Succeeded", "succeeded")),
    "failed": ((FAILED,), ("failed", "failed", "Failed", "failed")),
    "cancelled": ((CancelAsked(),), ("failed", "cancelled", "Cancelled", "canceled")),
    "cancelled while it ran": (
        (STARTED, CancelAsked(), CONFIRMED),
        ("failed", "cancelled", "Cancelled", "canceled"),
    ),
    "expired": ((DeadlinePassed(),), ("failed", "failed", "Failed", "failed")),
}


@on_every_engine
@every_contract
@pytest.mark.parametrize(("history", "words"), EVERYWHERE.values(), ids=EVERYWHERE)
async def test_one_task_is_read_through_all_four_contracts(
    service: Service, contract: str, history: History, words: tuple[str, ...]
) -> None:
    task = await service.make(contract, history)
    for reader, word in zip(VENDORS, words, strict=True):
        read = await service.query(reader, task)
        assert (read.status, read.json()["status"], read.json()["task_id"]) == (200, word, spell(reader, task))
        assert (await service.query(reader, task, prefix="")).json()["status"] == word


@on_every_engine
@pytest.mark.parametrize(("owner", "asker"), PAIRS)
async def test_a_cancel_through_any_contract_is_seen_through_all(service: Service, owner: str, asker: str) -> None:
    task = await service.make(owner)
    assert (await service.cancel(asker, task)).status in {200, 202}
    words = [(await service.query(reader, task)).json()["status"] for reader in VENDORS]
    assert words == ["failed", "cancelled", "Cancelled", "canceled"]


@pytest.mark.parametrize(("owner", "asker"), PAIRS)
async def test_what_a_cancel_of_a_running_task_does_is_the_askers_contract(
    service: Service, owner: str, asker: str
) -> None:
    task = await service.make(owner, (STARTED,))
    reply = await service.cancel(asker, task)
    told = (reply.status, (await service.seen(task))["status"], (await service.seen(task))["cancel_requested"])
    assert (
        told
        == {
            "lemondata": (409, "running", False),
            "bytespike": (200, "cancelled", True),
            "chunkr": (400, "running", False),
            "beatra": (202, "running", True),
        }[asker]
    )


@every_contract
async def test_an_id_in_another_contracts_spelling_is_not_found(service: Service, contract: str) -> None:
    task = await service.make(contract)
    mine = spell(contract, task)
    for way, theirs in product((query, cancel), {spell(other, task) for other in VENDORS} - {mine}):
        method, path, body = way(contract, task)
        body = body and body.replace(mine.encode(), theirs.encode())
        reply = await service.ask(contract, Call(method, path.replace(mine, theirs), body))
        assert (reply.status, code(reply)) == (404, NOT_FOUND[contract])
    assert (await service.seen(task))["status"] == "queued"


@on_every_engine
@every_contract
async def test_polls_follow_the_task_step_by_step(service: Service, contract: str) -> None:
    task, words = await service.make(contract), []
    for step in (Later(1), STARTED, CancelAsked(), COMPLETED):
        await service.go_on(task, step)
        polls = [(await service.query(contract, task)).json()["status"] for _ in range(3)]
        assert len(set(polls)) == 1
        words += polls[:1]
    assert (
        words
        == {
            "lemondata": ["pending", "processing", "processing", "completed"],
            "bytespike": ["pending", "running", "running", "completed"],
            "chunkr": ["Starting", "Processing", "Processing", "Succeeded"],
            "beatra": ["queued", "running", "running", "succeeded"],
        }[contract]
    )


# What the account cannot see

UNSEEN = {"lemondata": 403, "bytespike": 404, "chunkr": 404, "beatra": 404}
NOT_FOUND = {
    "lemondata": "async_task_not_found",
    "bytespike": "task_not_found",
    "chunkr": "Task not found",
    "beatra": "task_not_found",
}


@on_every_engine
@every_contract
@pytest.mark.parametrize("history", [(), (STARTED,), (COMPLETED,)], ids=["queued", "running", "completed"])
async def test_another_accounts_task_is_not_found_and_is_left_alone(
    service: Service, contract: str, history: History
) -> None:
    task = await service.make(contract, history)
    version = (await service.seen(task))["version"]
    read = await service.query(contract, task, account=STRANGER)
    assert (read.status, code(read)) == (404, NOT_FOUND[contract])
    refused = await service.cancel(contract, task, account=STRANGER)
    assert refused.status == UNSEEN[contract]
    assert (await service.seen(task))["version"] == version


@on_every_engine
@every_contract
async def test_a_deleted_task_is_not_found_by_clients_and_still_seen_by_the_operator(
    service: Service, contract: str
) -> None:
    task = await service.make(contract, (COMPLETED, DeleteAsked()))
    for way in (query, cancel):
        reply = await service.ask(contract, way(contract, task))
        assert (reply.status, code(reply)) == (404, NOT_FOUND[contract])
    assert (await service.seen(task))["deleted"] is True
    assert "completed" in await service.types(task)


@pytest.mark.parametrize("contract", ["lemondata", "bytespike", "beatra"])
@pytest.mark.parametrize(
    "history",
    [(COMPLETED,), (FAILED,), (CancelAsked(),), (DeadlinePassed(),)],
    ids=["completed", "failed", "cancelled", "expired"],
)
async def test_a_task_is_found_for_30_days_after_its_end_and_then_by_the_operator_only(
    service: Service, contract: str, history: History
) -> None:
    task = await service.make(contract, history)
    service.clock.now_us += 30 * DAY_SECONDS * 10**6 - 1
    assert (await service.query(contract, task)).status == 200
    version = (await service.seen(task))["version"]
    service.clock.now_us += 1
    for way in (query, cancel):
        reply = await service.ask(contract, way(contract, task))
        assert (reply.status, code(reply)) == (404, NOT_FOUND[contract])
    assert (await service.seen(task))["version"] == version


@every_contract
@pytest.mark.parametrize("history", [(), (STARTED,)], ids=["queued", "running"])
async def test_a_task_that_has_not_ended_is_found_for_good(service: Service, contract: str, history: History) -> None:
    task = await service.make(contract, (*history, Later(400 * DAY_SECONDS)))
    assert (await service.query(contract, task)).status == 200


async def test_how_long_a_task_is_found_depends_on_who_is_asked(service: Service) -> None:
    task = await service.make("chunkr", (COMPLETED, Later(30 * DAY_SECONDS)))
    statuses = {contract: (await service.query(contract, task)).status for contract in VENDORS}
    assert statuses == {"lemondata": 404, "bytespike": 404, "chunkr": 200, "beatra": 404}


# Whose request it is


@pytest.mark.parametrize(("of", "under"), PAIRS)
@both_ways
async def test_under_a_prefix_any_client_key_of_the_account_speaks_that_contract(
    service: Service, of: str, under: str, way: Way
) -> None:
    task = await service.make("lemondata")
    call = way(under, task)
    headers = shown(under, await service.key(of))
    reply = await service.send(call.method, f"/{under}{call.path}", headers=headers, body=call.body)
    assert reply.status == (202 if (under, way) == ("beatra", cancel) else 200)
    assert spell(under, task) in reply.body or reply.body == "Task cancelled"


@pytest.mark.parametrize(("of", "asked"), PAIRS)
async def test_at_the_bare_root_the_key_decides_whose_words_are_spoken(service: Service, of: str, asked: str) -> None:
    task = await service.make(of)
    call = query(asked, task)
    headers = shown(of, await service.key(of))
    reply = await service.send(call.method, call.path, headers=headers, body=call.body)
    if of == asked:
        assert (reply.status, reply.json()["task_id"]) == (200, spell(of, task))
    elif {of, asked} == {"lemondata", "beatra"}:  # they share the path, and each reads its own spelling there
        assert (reply.status, code(reply)) == (404, NOT_FOUND[of])
    else:
        assert (reply.status, code(reply)) in {
            (404, "Not found" if of == "chunkr" else "not_found"),
            (405, "Method not allowed" if of == "chunkr" else "method_not_allowed"),
        }


async def test_one_path_at_the_root_is_two_contracts_and_the_key_tells_which(service: Service) -> None:
    task = await service.make("lemondata")
    for contract, field in (("lemondata", "poll_url"), ("beatra", "links")):
        assert field in (await service.query(contract, task, prefix="")).json()


async def test_at_the_bare_root_the_operators_key_speaks_the_native_api(service: Service) -> None:
    task = await service.make("lemondata")
    headers = {"Authorization": f"Bearer {await service.key('ledger', role=Role.OPERATOR)}"}
    read, refused = [
        await service.send(way("lemondata", task).method, way("lemondata", task).path, headers=headers)
        for way in (query, cancel)
    ]
    assert (read.status, read.json()["public_id"]) == (200, spell("lemondata", task))
    assert (refused.status, refused.headers["Content-Type"]) == (405, "application/problem+json")
    assert (await service.seen(task))["status"] == "queued"


# Without a good key

ROUTES: dict[str, tuple[str, str, str]] = {
    "query of LemonData, or beatra": ("GET", "/v1/tasks/1", "lemondata"),
    "cancel of LemonData": ("DELETE", "/v1/tasks/1", "lemondata"),
    "an older query of LemonData": ("GET", "/v1/videos/generations/1", "lemondata"),
    "a method that none of the two has": ("PUT", "/v1/tasks/1", "lemondata"),
    "query of ByteSpike": ("POST", "/v1/tasks/query", "bytespike"),
    "cancel of ByteSpike": ("POST", "/v1/tasks/cancel", "bytespike"),
    "cancel of ByteSpike by path": ("POST", "/v1/tasks/cancel/1", "bytespike"),
    "a path of ByteSpike that LemonData reads as an id": ("GET", "/v1/tasks/query", "lemondata"),
    "cancel of beatra": ("POST", "/v1/tasks/1/cancel", "beatra"),
    "cancel of ByteSpike, or beatra": ("POST", "/v1/tasks/cancel/cancel", "bytespike"),
    "usage of ByteSpike": ("GET", "/v1/usage", "bytespike"),
    "usage of ByteSpike, by its other path": ("GET", "/api/v1/usage", "bytespike"),
    "query of Chunkr": ("GET", "/task/1", "chunkr"),
    "query of Chunkr, of its other client": ("GET", "/api/v1/tasks/1/parse", "chunkr"),
    "cancel of Chunkr": ("GET", "/tasks/1/cancel", "chunkr"),
    "create of Chunkr": ("POST", "/tasks/parse", "chunkr"),
    "create of Chunkr by form": ("POST", "/api/v1/task", "chunkr"),
    "update of Chunkr by form": ("PATCH", "/task/1", "chunkr"),
}
FORMS: dict[str, dict[str, str]] = {
    "none": {},
    "an empty one": {"Authorization": ""},
    "a wrong one": {"Authorization": "Bearer sk-1"},
    "a wrong one, raw": {"Authorization": "sk-1"},
    "a wrong one, in a header of its own": {"x-api-key": "sk-1"},
    "no key": {"Authorization": "Basic dXNlcjpwYXNzd29yZA=="},
    "ours, but mistyped": {"Authorization": "Bearer tl_000000000000_" + "0" * 49},
}
WORDS_401 = {
    "lemondata": {"invalid_api_key"},
    "bytespike": {"invalid_api_key"},
    "chunkr": {"Authorization header is missing", "Invalid or inactive API key"},
    "beatra": {"unauthorized", "invalid_api_key"},
}


def speaks(reply: Reply, contract: str) -> bool:
    """Whether the refusal has the shape that only this contract's have."""
    members = {
        "lemondata": ["message", "type", "code"],
        "bytespike": ["message", "type", "code", "param"],
        "beatra": ["code", "message", "retryable", "request_id"],
    }
    if contract == "chunkr":
        return reply.headers["Content-Type"] == "text/plain; charset=utf-8"
    return reply.headers["Content-Type"] == "application/json" and list(reply.json()["error"]) == members[contract]


@pytest.mark.parametrize(("method", "path", "owner"), ROUTES.values(), ids=ROUTES)
async def test_at_the_root_without_a_good_key_the_401_is_that_of_the_routes_contract(
    service: Service, method: str, path: str, owner: str
) -> None:
    for headers in FORMS.values():
        reply = await service.send(method, path, headers=headers)
        assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert speaks(reply, owner)
        assert code(reply) in WORDS_401[owner]


@every_contract
@at_both_mounts
async def test_a_poll_with_a_key_that_was_good_before_is_refused_from_its_revocation_on(
    service: Service, contract: str, mount: str
) -> None:
    task, prefix = await service.make(contract), mount.format(contract=contract)
    for _ in range(2):
        assert (await service.query(contract, task, prefix=prefix)).status == 200
    await service.revoke(contract)
    assert (await service.query(contract, task, prefix=prefix)).status == 401


@every_contract
@at_both_mounts
async def test_a_key_that_was_revoked_opens_nothing_any_more(service: Service, contract: str, mount: str) -> None:
    call = cancel(contract, await service.make(contract))
    headers = shown(contract, await service.revoked_key(contract))
    reply = await service.send(call.method, mount.format(contract=contract) + call.path, headers=headers)
    assert (reply.status, speaks(reply, contract)) == (401, True)
    assert code(reply) == {"lemondata": "expired_api_key", "chunkr": "Invalid or inactive API key"}.get(
        contract, "invalid_api_key"
    )


@every_contract
async def test_a_good_key_in_a_form_that_the_contract_does_not_take_is_a_wrong_one(
    service: Service, contract: str
) -> None:
    key, task = await service.key(contract), await service.make(contract)
    forms = {
        "raw": {"Authorization": key},
        "bearer": {"Authorization": f"Bearer {key}"},
        "own header": {"x-api-key": key},
        "basic": {"Authorization": f"Basic {key}"},
        "twice": {"Authorization": f"Bearer Bearer {key}"},
    }
    taken = {"chunkr": {"raw", "bearer"}, "bytespike": {"bearer", "own header"}}.get(contract, {"bearer"})
    for prefix, (form, headers) in product((f"/{contract}", ""), forms.items()):
        call = query(contract, task) if form in taken else cancel(contract, task)
        reply = await service.send(call.method, prefix + call.path, headers=headers, body=call.body)
        assert reply.status == (200 if form in taken else 401), (prefix, form)
        assert form in taken or speaks(reply, contract)


@every_contract
@both_ways
@pytest.mark.parametrize("role", [Role.WORKER, Role.OPERATOR])
async def test_the_keys_of_workers_and_operators_open_no_vendors_route(
    service: Service, contract: str, role: Role, way: Way
) -> None:
    task = await service.make(contract)
    call = way(contract, task)
    for issued_for in ("ledger", contract):
        headers = shown(contract, await service.key(issued_for, role=role))
        reply = await service.send(call.method, f"/{contract}{call.path}", headers=headers, body=call.body)
        assert (reply.status, speaks(reply, contract)) == (403, True)
    at_root = await service.send(call.method, call.path, headers=headers, body=call.body)
    assert (at_root.status, speaks(at_root, contract)) == (403, True)
    assert (await service.seen(task))["status"] == "queued"


@every_contract
async def test_a_clients_key_opens_nothing_of_the_native_api(service: Service, contract: str) -> None:
    task = await service.make(contract)
    headers = {"Authorization": f"Bearer {await service.key(contract)}"}
    for method, path in (("GET", f"/tasks/{spell('chunkr', task)}"), ("POST", "/tasks"), ("GET", "/keys")):
        reply = await service.send(method, f"/ledger/v1{path}", headers=headers)
        assert (reply.status, reply.headers["Content-Type"]) == (403, "application/problem+json")


# Routes that are not there


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/tasks/a/b/c", "/nothing", "/lemondatas/v1/tasks/1", "/v2/tasks/1"])
@pytest.mark.parametrize("headers", FORMS.values(), ids=FORMS)
async def test_a_route_that_nobody_has_is_a_404_at_the_root_whatever_the_key(
    service: Service, path: str, headers: dict[str, str]
) -> None:
    reply = await service.send("GET", path, headers=headers)
    assert (reply.status, reply.headers["Content-Type"]) == (404, "application/problem+json")
    assert code(reply) == "not_found"


@every_contract
@at_both_mounts
async def test_a_route_that_the_contract_does_not_have_is_a_404_in_its_words(
    service: Service, contract: str, mount: str
) -> None:
    for path in ("/", "/v1", "/v1/tasks/a/b/c", "/nothing", "/v2/tasks/1"):
        reply = await service.ask(contract, Call("GET", path), prefix=mount.format(contract=contract))
        assert (reply.status, speaks(reply, contract)) == (404, True)
        assert code(reply) in {"not_found", "Not found"}


@every_contract
async def test_a_prefix_without_a_route_is_a_404_in_its_words(service: Service, contract: str) -> None:
    for path in ("", "/", "//", "/v1//tasks"):
        reply = await service.send("GET", f"/{contract}{path}")
        assert (reply.status, speaks(reply, contract)) == (404, True)


METHODS: dict[str, tuple[str, str, str]] = {  # a path, a method it has not, and those that it has
    "lemondata": ("/v1/tasks/1", "PATCH", "DELETE, GET"),
    "bytespike": ("/v1/tasks/cancel/1", "GET", "POST"),
    "chunkr": ("/api/v1/task/1/cancel", "POST", "GET"),
    "beatra": ("/v1/tasks/1/cancel", "GET", "POST"),
}


@every_contract
@at_both_mounts
async def test_a_method_that_is_not_there_is_a_405_in_the_contracts_words(
    service: Service, contract: str, mount: str
) -> None:
    path, method, allowed = METHODS[contract]
    prefix = mount.format(contract=contract)
    for one in (method, "OPTIONS", "PROPFIND"):
        reply = await service.ask(contract, Call(one, path), prefix=prefix)
        assert (reply.status, reply.headers["Allow"], speaks(reply, contract)) == (405, allowed, True)
        assert code(reply) in {"method_not_allowed", "Method not allowed"}
    head = await service.ask(contract, Call("HEAD", path), prefix=prefix)
    assert (head.status, head.headers["Allow"], head.body) == (405, allowed, "")


# One path that two contracts read in two ways

CLASH = Call("POST", "/v1/tasks/cancel/cancel")


class Reading(NamedTuple):
    """What ``POST /v1/tasks/cancel/cancel`` is under a prefix, or at the root with this contract's key."""

    status: int
    code: str


CLASHES = {
    "lemondata": Reading(404, "not_found"),
    "bytespike": Reading(404, "task_not_found"),
    "chunkr": Reading(404, "Not found"),
    "beatra": Reading(404, "task_not_found"),
}


@every_contract
@at_both_mounts
async def test_cancel_cancel_is_read_by_the_contract_that_is_asked(service: Service, contract: str, mount: str) -> None:
    reply = await service.ask(contract, CLASH, prefix=mount.format(contract=contract))
    assert (reply.status, code(reply)) == CLASHES[contract]
    assert speaks(reply, contract)


async def test_cancel_cancel_with_a_body_is_a_task_named_twice_for_bytespike_alone(service: Service) -> None:
    task = await service.make("bytespike", out_task_id="order-4711")
    call = CLASH._replace(body=b'{"out_task_id":"order-4711"}')
    assert code(await service.ask("bytespike", call)) == "invalid_param"
    assert code(await service.ask("beatra", call)) == "invalid_request"
    assert (await service.seen(task))["status"] == "queued"


# Every answer


@every_contract
async def test_no_answer_is_to_be_kept_and_each_has_a_request_id(service: Service, contract: str) -> None:
    task, absent = await service.make(contract), TaskId(bytes(16))
    await service.query(contract, task)
    calls = [query(contract, task), cancel(contract, task), cancel(contract, task), cancel(contract, absent)]
    replies = [
        await service.ask(contract, call) for call in (*calls, Call("GET", "/nothing"), Call("PUT", calls[0].path))
    ]
    replies.append(await service.send(calls[0].method, f"/{contract}{calls[0].path}"))
    service.watched.read_faults.append(StorageError("the disk is gone"))
    replies.append(await service.ask(contract, query(contract, absent)))
    assert replies[-1].status == 503
    assert {reply.headers["Cache-Control"] for reply in replies} == {"no-store"}
    assert len({reply.headers["X-Request-Id"] for reply in replies}) == len(replies)


@every_contract
async def test_a_request_id_is_echoed_by_every_contract(service: Service, contract: str) -> None:
    reply = await service.ask(contract, query(contract, await service.make(contract)), X_Request_Id="mine-1")
    assert reply.headers["X-Request-Id"] == "mine-1"
