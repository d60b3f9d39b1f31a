"""The README's table of the four contracts, held to the service: one task, read and cancelled through each of them."""

import re
import tomllib
from itertools import product
from typing import Any, get_args

import msgspec
import pytest

from api import native_bodies
from api.contracts import CONTRACTS
from api.contracts.shape import Alter, Browse, Cancel, Operation, Read, Submit
from api.limits import FAILURES_PER_MINUTE, PER_MINUTE, Limits, Tier
from api.settings import Settings
from ledger.ids import Digits
from ledger.memory import MemoryEngine
from ledger.task import Status
from tests.http import (
    ACCOUNT,
    COMPLETED,
    FAILED,
    STARTED,
    STRANGER,
    CancelAsked,
    DeadlinePassed,
    History,
    Reply,
    Service,
    cancel,
    query,
    spell,
)
from tests.processes import ROOT
from tests.serving import serving
from tests.test_concurrency_limit import ordered

README = (ROOT / "README.md").read_text()


def table() -> dict[str, dict[str, str]]:
    """The cells, by the name of the row and the contract."""
    section = README.partition("## Four contracts, one task")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    contracts = [name.lower() for name in head[1:]]
    return {name: dict(zip(contracts, cells, strict=True)) for name, *cells in rows}


TABLE = table()
VENDORS = tuple(CONTRACTS)
HISTORIES: dict[Status, History] = {
    Status.QUEUED: (),
    Status.RUNNING: (STARTED,),
    Status.COMPLETED: (STARTED, COMPLETED),
    Status.FAILED: (STARTED, FAILED),
    Status.CANCELLED: (CancelAsked(),),
    Status.EXPIRED: (DeadlinePassed(),),
}
FINISHED = (Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.EXPIRED)
every_contract = pytest.mark.parametrize("contract", VENDORS)
every_status = pytest.mark.parametrize("status", HISTORIES)


def codes(cell: str) -> list[int]:
    return [int(number) for number in re.findall(r"\b[1-5]\d\d\b", cell)]


def test_the_table_has_a_column_for_every_contract_and_a_row_for_every_status() -> None:
    assert list(TABLE["prefix"]) == list(VENDORS)
    assert {status for status in Status if status is not Status.ABSENT} == set(HISTORIES) <= set(TABLE)


@every_contract
def test_prefix_and_id_are_the_contracts(contract: str) -> None:
    spelling = CONTRACTS[contract].spelling
    digits = {Digits.HEX: "32 hex", Digits.ULID: "ULID", Digits.UUID: "UUID"}[spelling.digits]
    prefix = f"`{spelling.prefix}` + " if spelling.prefix else ""
    assert TABLE["prefix"][contract] == f"`/{contract}`"
    assert TABLE["id"][contract] == prefix + digits


# One task, four contracts


@every_contract
@every_status
async def test_one_task_reads_in_each_contract_as_the_table_says(
    service: Service, status: Status, contract: str
) -> None:
    task = await service.make(contract, HISTORIES[status])
    assert (await service.seen(task))["status"] == status
    for reader, prefix in product(VENDORS, (None, "")):
        read = (await service.query(reader, task, prefix=prefix)).json()
        word, *beside = re.findall("`([^`]*)`", TABLE[status][reader])
        assert (read["task_id"], read["status"]) == (spell(reader, task), word)
        assert read.get("cancelled", False) is ("cancelled: true" in beside)


@every_contract
async def test_a_cancel_through_each_contract_is_answered_as_the_table_says(service: Service, contract: str) -> None:
    async def asked(status: Status, **fields: Any) -> Reply:  # noqa: ANN401 - fields of the create
        return await service.cancel(contract, await service.make("lemondata", HISTORIES[status], **fields))

    wanted, *of_models_that_cannot = codes(TABLE["cancel a queued task"][contract])
    assert (await asked(Status.QUEUED)).status == wanted
    assert [(await asked(Status.QUEUED, model="sora-2")).status] == (of_models_that_cannot or [wanted])
    assert [(await asked(Status.RUNNING)).status] == codes(TABLE["cancel a running task"][contract])
    for status in FINISHED:
        assert [(await asked(status)).status] == codes(TABLE["cancel a finished task"][contract]), status


@every_contract
async def test_another_accounts_task_is_answered_as_the_table_says(service: Service, contract: str) -> None:
    task = await service.make(contract)
    read, *stopped = codes(TABLE["another account's task"][contract])
    assert (await service.query(contract, task, account=STRANGER)).status == read
    assert [(await service.cancel(contract, task, account=STRANGER)).status] == (stopped or [read])


# Routes, keys and headers

KINDS: dict[str, type[Operation]] = {
    "create": Submit,
    "query": Read,
    "list": Browse,
    "cancel": Cancel,
    "update, delete": Alter,
}
"""What the routes in these rows are; those in other rows may be of any kind."""
ROUTE = re.compile("`(?:([A-Z]+) )?(/[^`]+)`")


def routes(contract: str) -> dict[tuple[str, str], str]:
    """The rows of those that the table names: a path without a method has that of the one before it."""
    found: dict[tuple[str, str], str] = {}
    for row, cells in TABLE.items():
        method = ""
        for given, path in ROUTE.findall(cells[contract]):
            method = given or method
            if method:
                found[method, path] = row
    return found


def does(operation: Operation) -> list[object]:
    """All that an operation is, but for its method and path."""
    return [getattr(part, "__code__", part) for part in operation[2:]]


@every_contract
def test_every_route_that_the_table_names_is_there_and_every_other_is_the_same_by_another_path(contract: str) -> None:
    served = {(one.method, one.path): one for one in CONTRACTS[contract].operations}
    named = routes(contract)
    for route, row in named.items():
        assert type(served[route]) is KINDS.get(row, type(served[route])), route
    for route, operation in served.items():
        assert any(does(served[other]) == does(operation) for other in named), route


@every_contract
async def test_a_key_is_taken_in_the_forms_that_the_table_names_and_in_no_other(
    service: Service, contract: str
) -> None:
    key, call = await service.key(contract), query(contract, await service.make(contract))
    forms = {
        "`Bearer`": {"Authorization": f"Bearer {key}"},
        "`x-api-key`": {"x-api-key": key},
        "raw": {"Authorization": key},
    }
    taken = TABLE["key"][contract].split(", ")
    assert set(taken) <= set(forms)
    for form, headers in forms.items():
        reply = await service.send(call.method, f"/{contract}{call.path}", headers=headers, body=call.body)
        assert reply.status == (200 if form in taken else 401), form


@every_contract
async def test_what_is_left_is_told_where_the_table_says_so(service: Service, contract: str) -> None:
    task = await service.make(contract)
    for reply in (await service.query(contract, task), await service.cancel(contract, task, account=STRANGER)):
        told = [name for name in reply.headers if name.startswith("X-RateLimit-")]
        assert len(told) == (3 if TABLE["requests left, in every answer"][contract] else 0)


COMMANDS = README.replace(" \\\n  ", " ").splitlines()
CURLS = [line for line in COMMANDS if line.startswith("curl localhost:8080/") and " -d " in line]
CREATES = {name: [line for line in CURLS if f":8080/{name}/" in line] for name in VENDORS}


@every_contract
async def test_the_create_that_the_readme_shows_is_taken(service: Service, contract: str) -> None:
    place = {"curl localhost:8080": "curl -X POST http://localhost:8080", "$KEY": await service.key(contract)}
    for line in CREATES[contract]:
        reply = await service.curl(line, place)
        assert reply.status in {200, 202}, reply
    made = (await service.native("GET", "/tasks")).json()["tasks"]
    assert [task["contract"] for task in made] == [contract] * len(CREATES[contract])
    assert made


@every_contract
async def test_too_little_credit_is_refused_and_told_as_the_table_says(service: Service, contract: str) -> None:
    place = {"curl localhost:8080": "curl -X POST http://localhost:8080", "$KEY": await service.key(contract)}
    await service.ledger.accounts.set_limit(ACCOUNT, 0, by="test", at_us=service.clock())
    for line in CREATES[contract]:
        reply = await service.curl(line, place)
        assert [reply.status] == codes(TABLE["too little credit"][contract])
        header = TABLE["credit left, in every answer"][contract].strip("`")
        assert ("X-Quota-Remaining-Credits" in reply.headers) is (header == "X-Quota-Remaining-Credits")


@every_contract
async def test_too_many_tasks_under_way_are_refused_as_the_table_says(contract: str) -> None:
    async with serving(MemoryEngine(), limits=Limits(Tier(tasks_max=1), {})) as service:
        await service.create(contract)
        reply = await ordered(service, contract)
    assert [reply.status] == codes(TABLE["too many tasks under way"][contract])


def test_the_documented_cancel_is_the_one_that_the_tests_ask() -> None:
    task = CONTRACTS["beatra"].spelling.parse("tsk_01KE40A2R7V5W8Y0B3D6F9H1JK")
    assert task is not None
    for contract in VENDORS:
        asked = {
            (call.method, call.path.replace(spell(contract, task), "{id}"))
            for call in (query(contract, task), cancel(contract, task))
        }
        assert asked <= set(routes(contract))


# The native API's reports, and figures


COMMON = {"event_id", "effective_at"}


def reports() -> dict[str, str]:
    """The cell with the fields, by the type of the report."""
    lines = README.partition("| type | fields (`*` needed) |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: fields for names, fields in rows for name in re.findall("`([^`]*)`", names)}


@pytest.mark.parametrize("kind", get_args(native_bodies.ReportBody), ids=lambda kind: kind.__name__)
def test_each_report_has_the_fields_that_the_table_says(kind: type[msgspec.Struct]) -> None:
    told = re.sub(r"\(.*?\)", "", reports()[str(kind.__struct_config__.tag)])
    needed = {f"{field.name}*" if field.required else field.name for field in msgspec.structs.fields(kind)}
    assert set(re.findall("`([^`]*)`", told)) == needed - COMMON
    assert needed >= COMMON


def test_the_table_tells_of_no_other_report() -> None:
    assert reports().keys() == {kind.__struct_config__.tag for kind in get_args(native_bodies.ReportBody)}


def test_the_configuration_that_the_readme_shows_is_read_and_its_tiers_are_the_vendors() -> None:
    found = re.search(r"```toml\n( *\[limits\].*?)```", README, re.DOTALL)
    assert found is not None
    shown = msgspec.convert(tomllib.loads(found[1]), Settings)
    assert {name: tier.tasks_max for name, tier in shown.tiers.items()} == {
        "free": 5,
        "pro": 25,
        "max": 100,
        "enterprise": None,
    }
    limits = shown.budgets()
    assert (limits.tasks_max("acme"), limits.tasks_max("else")) == (25, 5)


def test_what_the_configuration_says_above_its_tables_is_what_holds_without_one() -> None:
    found = re.search(r"```toml\n( *# catalogue.*?)```", README, re.DOTALL)
    assert found is not None
    shown = tomllib.loads(found[1])
    scalars = {name for name, value in msgspec.structs.asdict(Settings()).items() if isinstance(value, int)}
    assert set(shown) == scalars
    assert msgspec.convert(shown, Settings) == Settings()


def test_the_limits_are_those_that_hold_without_a_configuration() -> None:
    words = " ".join(README.split())
    assert f"(default {PER_MINUTE:,} of each, and {FAILURES_PER_MINUTE} of `failed`)" in words
