"""An export as it is read: whole in pages of any size, and told by the line where it is not what was written."""

import itertools

import msgspec
import pytest

from ledger.engine import Engine
from ledger.lineage import Ancestor
from ledger.memory import MemoryEngine
from ledger.records import ClaimRow, Recorded
from projections.follow import nobody
from projections.places import place_of
from projections.transfer import log_source
from projections.transfer.log_source import BadExport, Export
from scripts.export import lines
from tests import stored


@pytest.fixture
async def engine() -> Engine:
    made = MemoryEngine()
    await stored.fill(made)
    return made


@pytest.fixture
async def texts(engine: Engine) -> list[bytes]:
    """What an export of the engine writes."""
    begin, end = await place_of(engine, "0"), await place_of(engine, None)
    return [msgspec.json.encode(line) async for line in lines(engine, after=begin, until=end, progress=nobody)]


@pytest.mark.parametrize("page", [1, 2, 7, 1000])
async def test_it_is_the_log_and_its_claims_in_pages_of_one_kind_wherever_they_end(
    engine: Engine, texts: list[bytes], monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(log_source, "PAGE", page)
    source = Export(iter(texts))
    pages = list(source.pages())
    assert all(len({type(row) for row in rows}) == 1 and len(rows) <= page for rows in pages)
    rows = list(itertools.chain.from_iterable(pages))
    log, claims = await engine.after(0, 1_000_000), await engine.claims_after(None, 1_000_000)
    events = [row for row in rows if isinstance(row, Recorded)]
    assert [(row.position, row.stream, row.entry, row.hash) for row in events] == [
        (row.position, row.stream, row.entry, row.hash) for row in log
    ]
    assert [row for row in rows if isinstance(row, ClaimRow)] == claims
    assert (source.log.log_id, source.end.hash) == (engine.log_id, log[-1].hash.hex())


def read_until_told(texts: list[bytes]) -> tuple[int, str]:
    """How many rows were read, and what was told then."""
    read = 0
    try:
        for rows in Export(iter(texts)).pages():
            read += len(rows)
    except BadExport as bad:
        return read, str(bad)
    return read, ""


async def test_each_line_that_is_left_out_or_stands_twice_is_told_before_what_follows_it_is_used(
    texts: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_source, "PAGE", 1)
    for at in {*range(0, len(texts), 11), len(texts) - 1}:
        for spoilt in (texts[:at] + texts[at + 1 :], texts[: at + 1] + texts[at:]):
            read, told = read_until_told(spoilt)
            assert told.startswith("line "), at
            assert read <= at or b'"line":"claim"' in texts[at], "a claim that is missing shows at the end only"


async def test_whose_log_it_was_is_remembered_with_what_is_shared(texts: list[bytes]) -> None:
    source = Export(iter(texts))
    assert sum(map(len, source.pages())) == len(texts) - 2
    name, end = source.log.log_id, source.end
    assert source.lineage(same=True) == (Ancestor(log_id=name, position=end.position, hash=end.hash),)
    assert source.lineage(same=False) == (Ancestor(log_id=name, position=0, hash=end.hash),)
