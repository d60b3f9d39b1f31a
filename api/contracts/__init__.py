"""The vendor contracts. To add one: write its file, its row here, and its table of tests.

A contract is data and pure functions (`api.contracts.shape`); two of them may repeat a line, since they change for
different people. The order is the one in which a route at the bare root is taken for a contract's when no key says so.
"""

from api.contracts import beatra, bytespike, chunkr, lemondata
from api.contracts.shape import Contract

CONTRACTS: dict[str, Contract] = {
    contract.name: contract for contract in (lemondata.CONTRACT, bytespike.CONTRACT, chunkr.CONTRACT, beatra.CONTRACT)
}
