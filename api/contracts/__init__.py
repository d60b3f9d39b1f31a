"""The vendor contracts. To add one: write its file, its row here, and its table of tests.

The file ends in a `Contract` (`api.contracts.shape`): data and pure functions. All that differs by vendor is in there,
the spelling of ids, the billing school and the headers that a key comes in among it, and everything else asks this
table: the mounts, the native API, the command line, and what reads a task id in any spelling. Its models and their
prices are rows of the catalogue, as everybody's are.

Two contracts may repeat a line, since they change for different people. The order is the one in which a route at the
bare root is taken for a contract's when no key says so.
"""

from api.contracts import beatra, bytespike, chunkr, lemondata
from api.contracts.shape import Contract
from ledger.ids import Spelling, TaskId

CONTRACTS: dict[str, Contract] = {
    contract.name: contract for contract in (lemondata.CONTRACT, bytespike.CONTRACT, chunkr.CONTRACT, beatra.CONTRACT)
}


def spellings() -> tuple[Spelling, ...]:
    """Every way to write a task id: each contract's, and the native API's."""
    return tuple(dict.fromkeys((*(contract.spelling for contract in CONTRACTS.values()), Spelling.UUID)))


def parse_any(text: str) -> TaskId | None:
    """The id in whichever spelling *text* has; None when it has none of them."""
    for spelling in spellings():
        task = spelling.parse(text)
        if task is not None:
            return task
    return None
