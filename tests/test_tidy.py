"""The house's structure, held to the source: what may import what, what is pure, where money and SQL are written.

Verbs are modules, and vendors have no name outside their files: ``test_cli.py`` and ``test_contracts.py`` hold that.
"""

import ast
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from api.contracts.shape import Operation
from api.mounts import MOUNTS
from scripts.cli import VERBS
from tests.processes import ROOT

OURS = ("ledger", "projections", "api", "scripts", "tests")
README = (ROOT / "README.md").read_text()


@cache
def modules(*folders: str) -> dict[str, ast.Module]:
    """The syntax trees of all modules in *folders*, by path."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in paths}


def imported(tree: ast.Module) -> Iterator[str]:
    """The packages that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


# Direction

MAY_IMPORT = {
    "ledger": {"ledger"},
    "projections": {"ledger", "projections"},
    "api": {"ledger", "projections", "api"},
    "scripts": {"ledger", "projections", "api", "scripts"},
    "tests": set(OURS),
}


@pytest.mark.parametrize("folder", OURS)
def test_a_folder_imports_what_lies_below_it_and_nothing_else_of_ours(folder: str) -> None:
    for path, tree in modules(folder).items():
        ours = {name.partition(".")[0] for name in imported(tree)} & set(OURS)
        assert ours <= MAY_IMPORT[folder], path


SHARED = "what they share"


def test_what_projections_share_is_below_all_of_them_and_no_two_stand_on_each_other() -> None:
    known = {path.split("/")[1] for path in modules("projections") if path.count("/") > 1}
    below: dict[str, set[str]] = {name: set() for name in (*known, SHARED)}
    for path, tree in modules("projections").items():
        own = path.split("/")[1] if path.count("/") > 1 else SHARED
        told = {name.split(".")[1] for name in imported(tree) if name.startswith("projections.")}
        below[own] |= (told & known) - {own}
    assert below[SHARED] == set()
    TopologicalSorter(below).prepare()  # raises where there is a circle


PARTS_OF_EVENTS = {
    f"ledger.{name}" for name in ("account_events", "book_events", "event_base", "store_events", "task_events")
}


def test_events_are_imported_from_one_place() -> None:
    parts = {f"{name.replace('.', '/')}.py" for name in PARTS_OF_EVENTS}
    found = {path for path, tree in modules(*OURS).items() if PARTS_OF_EVENTS & {*imported(tree)}}
    assert found - parts == {"ledger/events.py"}
    assert parts <= {*modules("ledger")}


# Purity

LIVE = {
    "ledger/accounts.py": "accounts are looked up, and remembered by the clock",
    "ledger/attempts.py": "appends",
    "ledger/break_log.py": "breaks are looked up, and appended",
    "ledger/statement_log.py": "statements are looked up, and appended",
    "ledger/callback_log.py": "what accounts have arranged is looked up, and appended",
    "ledger/changes.py": "readers wait for it to tell",
    "ledger/catalogue.py": "reads its file, when the service starts",
    "ledger/engine.py": "the protocol of what is live",
    "ledger/entropy.py": "draws lots",
    "ledger/keyring.py": "keys are looked up, and remembered by the clock",
    "ledger/ledger.py": "the running ledger",
    "ledger/log_end.py": "readers wait for it to move",
    "ledger/memory.py": "an engine",
    "ledger/sqlite.py": "opens an engine",
    "ledger/sqlite_codes.py": "knows SQLite's numbers",
    "ledger/sqlite_commits.py": "writes an engine's file",
    "ledger/sqlite_copies.py": "copies an engine's file",
    "ledger/sqlite_damage.py": "looks at what lies under an engine",
    "ledger/sqlite_engine.py": "an engine",
    "ledger/sqlite_file.py": "opens an engine's file",
    "ledger/sqlite_health.py": "looks through an engine's file",
    "ledger/sqlite_scratch.py": "makes files beside an engine's, and removes those of the dead",
    "ledger/sqlite_staging.py": "stages rows in an engine's file, and rests",
    "ledger/sqlite_switch.py": "replaces rows in an engine's file",
    "ledger/sqlite_wipe.py": "cuts an engine's write-ahead log",
    "ledger/views.py": "reads what it does not have",
    "ledger/waiters.py": "callers wait for them",
    "ledger/writer.py": "the group commit",
    "projections/audit/accounts.py": "reads the accounts",
    "projections/audit/audit.py": "reads the store",
    "projections/audit/costs.py": "reads the tasks that are billed",
    "projections/audit/findings.py": "reads the log, page by page",
    "projections/audit/lineage.py": "reads the log",
    "projections/audit/log.py": "reads the log",
    "projections/audit/prove.py": "reads the log as a tree",
    "projections/audit/quick_check.py": "reads the store",
    "projections/audit/quick_log.py": "reads the log",
    "projections/audit/quick_tasks.py": "reads the tasks",
    "projections/audit/tasks.py": "reads the tasks",
    "projections/books/booked.py": "reads the books' file",
    "projections/books/books.py": "a file of its own",
    "projections/books/break_rows.py": "reads the books' file",
    "projections/books/cost_rows.py": "reads the books' file",
    "projections/books/snapshot.py": "that file, read once more",
    "projections/books/statement_rows.py": "reads the books' file",
    "projections/callbacks/queue.py": "a file of its own",
    "projections/deadlines/deadlines.py": "a file of its own",
    "projections/explain/costs.py": "reads the books and the log",
    "projections/follow.py": "reads the log",
    "projections/places.py": "looks a place up in the log",
    "projections/reconciliation/balances.py": "reads the books and the accounts",
    "projections/reconciliation/comparison.py": "reads the books",
    "projections/reconciliation/cost_log.py": "costs are looked up, and appended",
    "projections/reconciliation/known_lines.py": "reads the books",
    "projections/reconciliation/providers.py": "reads the books' file",
    "projections/reconciliation/reconcile.py": "follows the log, and appends what differs",
    "projections/reconciliation/self_check.py": "reads the books",
    "projections/reconciliation/statement_records.py": "reads lines out of memory",
    "projections/replay/books.py": "keeps books in files of their own",
    "projections/replay/file.py": "a file of its own",
    "projections/replay/ranges.py": "reads the store",
    "projections/replay/replay.py": "reads the store",
    "projections/replay/switch.py": "replaces rows in the store, and tells how long that took",
    "projections/replay/task_pages.py": "reads the tasks",
    "projections/replay/workers.py": "works in other processes",
    "projections/reports/as_of.py": "reads the log",
    "projections/reports/journal.py": "`draw` follows the log",
    "projections/reports/parquet.py": "writes a table into memory",
    "projections/reports/report.py": "`draw` follows the log",
    "projections/reports/rows.py": "writes lines into memory",
    "projections/side_file.py": "a file beside the ledger's",
    "projections/transfer/refill.py": "fills a store",
    "projections/transfer/store_digest.py": "reads the store",
}
"""What may wait, read, draw lots and look at the clock. All else in these folders is pure."""
PURE_OF_API = (
    *("bodies", "callback_lines", "feed_shapes", "forms", "limits", "native_bodies", "native_refusals"),
    *("native_reports", "native_shapes", "native_tags", "refusals", "request_ids", "routing", "sse"),
)
OUTSIDE = (
    {"aiohttp", "aiosqlite", "asyncio", "concurrent", "fcntl", "glob", "http", "io", "logging", "multiprocessing", "os"}
    | {"pathlib", "random", "secrets", "shutil", "signal", "socket", "sqlite3", "structlog", "subprocess", "sys"}
    | {"tempfile", "threading", "time", "uuid"}
)
"""Packages through which a module reaches the clock, the disk, the network, chance, a log or another task."""
CLOCKS = {"now", "utcnow", "today", "time_ns", "monotonic"}
WAITS = (ast.Await, ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith)


def impurities(tree: ast.Module) -> list[str]:
    """What in a module is not a function of its arguments."""
    found = [name for name in imported(tree) if name.partition(".")[0] in OUTSIDE]
    for node in ast.walk(tree):
        if isinstance(node, WAITS):
            found.append(f"waits in line {node.lineno}")
        elif isinstance(node, ast.Call) and _goes_outside(node.func):
            found.append(ast.unparse(node))
    return found


def _goes_outside(called: ast.expr) -> bool:
    if isinstance(called, ast.Name):
        return called.id in {"open", "print", "input"}
    return isinstance(called, ast.Attribute) and called.attr in CLOCKS


def pure() -> dict[str, ast.Module]:
    wanted = {f"api/{name}.py" for name in PURE_OF_API}
    found = {path: tree for path, tree in modules("ledger", "projections").items() if path not in LIVE}
    return found | {
        path: tree for path, tree in modules("api").items() if path in wanted or path.startswith("api/contracts/")
    }


def test_what_is_not_live_is_pure() -> None:
    found = pure()
    known = {"ledger/rules.py", "ledger/settlement.py", "projections/books/movements.py", "api/contracts/shape.py"}
    assert known <= set(found)
    assert {f"api/{name}.py" for name in PURE_OF_API} <= set(found)
    assert {path: odd for path, tree in found.items() if (odd := impurities(tree))} == {}


@pytest.mark.parametrize("path", LIVE)
def test_what_is_called_live_is_not_pure(path: str) -> None:
    assert impurities(modules(path.partition("/")[0])[path])


# Money

FLOATS: Mapping[str, set[str]] = {
    "ledger/accounts.py": {"float", "0.0", "1.0"},  # how long an account is remembered, by the monotonic clock
    "ledger/log_end.py": {"float"},  # seconds of waiting for more
    "ledger/sqlite_wipe.py": {"1.0"},  # seconds until the next attempt
    "ledger/keyring.py": {"float", "1.0"},  # how long a key is remembered, by the monotonic clock
    "ledger/sqlite_file.py": {"5.0", "0.05"},  # seconds of waiting for another process
    "ledger/sqlite_staging.py": {"1e-09"},  # seconds of rest
    "ledger/sqlite_switch.py": {"0.05"},  # seconds of waiting for readers
    "projections/reconciliation/statement_format.py": {  # fractions, which stay exact
        "Fraction(above) / Fraction(below or '1')",
        "_rational(self.tolerance_percent, 'tolerance_percent') / 100",
    },
    "projections/follow.py": {"float"},  # seconds of rest between two pages
    "api/native_feed.py": {"float"},  # seconds of waiting for more
    "api/contracts/lemondata_create.py": {"float"},  # sliders of their models
    "api/contracts/chunkr_bodies.py": {"float"},  # a language model's temperature
}
"""The floats that there are: none of them is money."""


def floats(tree: ast.Module) -> set[str]:
    """Where a module has a float in hand: as a literal, by name, or out of a true division."""
    found = set()
    for node in ast.walk(tree):
        is_literal = isinstance(node, ast.Constant) and isinstance(node.value, float)
        is_named = isinstance(node, ast.Name) and node.id in {"float", "round"}
        divides = isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div)
        if is_literal or is_named or divides:
            found.add(ast.unparse(node))
    return found


def _money() -> dict[str, ast.Module]:
    """The modules through which amounts go."""
    return modules("ledger", "projections") | {
        path: tree for path, tree in modules("api").items() if path.startswith(("api/contracts/", "api/native"))
    }


def test_no_float_comes_near_money() -> None:
    assert {path: found for path, tree in _money().items() if (found := floats(tree))} == FLOATS


@pytest.mark.parametrize("line", ["x = 1.5", "x = a / b", "x /= b", "x = float(t)", "x: float", "x = round(a)", "1e6"])
def test_a_float_in_money_code_would_be_found(line: str) -> None:
    assert floats(ast.parse(line))


FRACTIONS = {
    "projections/reconciliation/statement_format.py",
    "projections/reconciliation/statements.py",
    "projections/replay/what_if.py",
    "ledger/money.py",
}
"""Where there are fractions, which are exact: rates, shares, and what a rounding leaves."""
DIVISIONS: Mapping[str, set[str]] = {
    "ledger/money.py": {
        "divmod(above, below)",  # `rounded`: the one place
        "divmod(abs(micros), MICROS_PER_CREDIT)",  # the two parts of a text, exact
        "divmod(abs(units), 10 ** decimals)",  # the same
        "divmod(abs(amount.numerator), amount.denominator)",  # the same
    },
    "ledger/cursors.py": {"-len(text) % 4"},  # characters
    "ledger/keys.py": {"divmod(value, 62)"},  # digits
    "ledger/ledger.py": {"read_bytes // TURN_BYTES"},
    "ledger/sqlite_wipe.py": {"int(BUSY_TIMEOUT_SECONDS * 1000)"},  # milliseconds
    "ledger/writer.py": {"(len(self._before.waiters) + self.queued + 1) // 2"},  # commands
    "projections/callbacks/queue.py": {  # positions
        "(rows[0].position - 1) // FORGETS_EVERY",
        "rows[-1].position // FORGETS_EVERY",
    },
    "projections/explain/rules.py": {"divmod(terms.output_seconds * percent, FULL_PERCENT)"},  # seconds, exact
    "projections/reconciliation/leftovers.py": {"AMOUNTS_MAX // 2"},  # how many amounts
    "projections/places.py": {"(known + beyond) // 2"},  # positions
    "projections/reports/parquet.py": {"Decimal(value)"},  # a text's own digits
    "api/contracts/chunkr_list.py": {"SKIP_MAX // limit"},  # pages
}
"""The divisions that there are, but for those of times: none rounds an amount, apart from the first."""

_CUTS = {"divmod", "Decimal", "floor", "ceil", "trunc", "quantize", "limit_denominator", "floordiv"}
"""What makes something else of a number than what it is; ``round`` is found among the floats."""
_AMOUNTS = re.compile(r"_(micros|credits)")
_TIMES = re.compile(r"(_us|_ns|_ms|_US|_MS|US_PER_\w+|_ns\(\))\b")


def divisions(tree: ast.Module) -> set[str]:
    """Where a module divides and something may be dropped; not where it divides times, or fills in a text."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp | ast.AugAssign):
            left = node.left if isinstance(node, ast.BinOp) else node.target
            divides = isinstance(node.op, ast.FloorDiv | ast.Mod) and not isinstance(left, ast.Constant)
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
            divides = called in _CUTS or (called == "int" and bool(node.args) and _reckons(node.args[0]))
        else:
            continue
        text = ast.unparse(node)
        if divides and (_AMOUNTS.search(text) or not _TIMES.search(text)):
            found.add(text)
    return found


def _reckons(node: ast.expr) -> bool:
    """Whether it multiplies or divides: a text that `int` reads does not."""
    return any(isinstance(one, ast.Mult | ast.Div) for one in ast.walk(node))


def test_an_amount_is_rounded_in_one_place() -> None:
    money = _money()
    assert {path: found for path, tree in money.items() if (found := divisions(tree))} == DIVISIONS
    assert {path for path, tree in money.items() if {"fractions", "decimal"} & {*imported(tree)}} == FRACTIONS | {
        "projections/reports/parquet.py"
    }


@pytest.mark.parametrize(
    "line",
    [
        "x = a_micros // b",
        "x_micros //= 2",
        "x = rate_micros * took_us // US_PER_SECOND",
        "x = a_micros % 10",
        "x, y = divmod(a_micros, 3)",
        "x = int(a_micros * share)",
        "x = int(a / b)",
        "x = math.floor(share)",
        "x = Decimal(text).quantize(unit)",
        "x = share.limit_denominator(100)",
        "x = operator.floordiv(a, b)",
    ],
)
def test_another_place_that_rounds_an_amount_would_be_found(line: str) -> None:
    assert divisions(ast.parse(line))


@pytest.mark.parametrize("line", ["x = at_us // US_PER_SECOND", "x = '%d' % n", "x = int(text)", "x = rounded(a, b)"])
def test_what_rounds_no_amount_is_passed_over(line: str) -> None:
    assert not divisions(ast.parse(line))


# SQL

SQL = re.compile(r"\b(SELECT|INSERT INTO|INSERT OR|UPDATE \w+ SET|DELETE FROM|CREATE TABLE|WHERE|PRAGMA)\b")
BUILDS_SQL = {
    "ledger/sqlite_file.py": 2,  # the founding, of constants; a pragma by its name
    "ledger/sqlite_damage.py": 1,  # a pragma, with a bound
    "ledger/sqlite_upgrades.py": 3,  # of constants
    "ledger/sqlite_wipe.py": 1,  # a pragma, with a number
    "projections/side_file.py": 4,  # of constants: our tables by their names, and pragmas
}
"""How many statements are put together outside of the files for it, ``*_sql.py``; values are parameters everywhere."""


def built_sql(tree: ast.Module) -> list[str]:
    """The statements that a module puts together."""
    found = []
    for node in ast.walk(tree):
        parts: list[ast.AST] = []
        match node:
            case ast.JoinedStr(values=values) if any(isinstance(part, ast.FormattedValue) for part in values):
                parts = [*values]
            case ast.BinOp(left=left, op=ast.Add() | ast.Mod(), right=right):
                parts = [left, right]
            case ast.Call(func=ast.Attribute(value=value, attr="format" | "join" | "replace")):
                parts = [value]
        texts = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        if SQL.search(" ".join(texts)):
            found.append(ast.unparse(node))
    return found


def test_sql_is_put_together_in_its_own_files_and_nowhere_else() -> None:
    trees = modules("ledger", "projections", "api", "scripts").items()
    assert {path: len(found) for path, tree in trees if (found := _outside_its_files(path, tree))} == BUILDS_SQL


def _outside_its_files(path: str, tree: ast.Module) -> list[str]:
    return [] if path.endswith("_sql.py") else built_sql(tree)


@pytest.mark.parametrize(
    "line",
    ["f'SELECT {x}'", "'SELECT * FROM t WHERE a = ' + x", "'DELETE FROM %s' % x", "'INSERT INTO {}'.format(x)"],
)
def test_a_statement_that_is_put_together_would_be_found(line: str) -> None:
    assert built_sql(ast.parse(line))


# What is in the repository

NOT_HERE = {
    "an unfinished thing": r"\b(TO[D]O|FIX[M]E|X[X]X)\b",
    "a folder that is not the project's": r"\.\./share[d]",
    "a path of somebody's machine": r"(?<![\w.}])/(wo[r]k|ho[m]e|roo[t]|Use[r]s)/",
    "a registry's host": r"pypi\.org|pythonhosted\.org|registry\.npmjs|npmjs\.org/|(?<!no-emit-)index-[u]rl",
}


@cache
def tracked() -> dict[Path, str]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    done = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return {path: path.read_text() for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()}


@pytest.mark.parametrize("what", NOT_HERE)
def test_the_repository_holds_nothing_of_the_kind(what: str) -> None:
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for path, text in tracked().items()
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(NOT_HERE[what], line)
    ]
    assert found == []


# What the README lists


def cells(heading: str) -> list[str]:
    """The first cells of the rows of the first table under *heading*."""
    lines = README.partition(f"\n## {heading}\n")[2].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    found = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        found.append(line.split("|")[1])
    return found


def test_the_readme_has_a_row_for_every_verb_in_the_order_of_the_help() -> None:
    assert [re.findall(r"`([a-z]+)", cell)[0] for cell in cells("The command line")] == [*VERBS]


def listed_routes() -> set[tuple[str, str]]:
    """Method and path; a method alone has the next path, and ``...`` stands for the path before."""
    found, alone, before = set(), list[str](), ""
    for cell in cells("The native API"):
        for words in re.findall("`([^`]+)`", cell):
            method, _, path = words.rpartition(" ")
            if not method and not path.startswith("/"):
                alone.append(path)
                continue
            path = path.partition("?")[0].replace("...", before).replace("{key_id}", "{id}")
            found |= {(one, path) for one in [*alone, method]}
            alone, before = [], path
    return found


def test_the_readme_has_a_row_for_every_native_route_and_for_no_other() -> None:
    served: Callable[[Operation], tuple[str, str]] = lambda one: (one.method, f"/ledger{one.path}")  # noqa: E731
    routes = {served(one) for one in MOUNTS["ledger"].contract.operations}
    assert listed_routes() - {("GET", "/healthz"), ("GET", "/readyz")} == routes
