"""Which task a client means, and whether he may see it."""

from api.contracts.shape import Asked, ByKey, ByTask, Contract, Target
from api.deps import Deps
from ledger.errors import TaskNotFound
from ledger.ids import TaskId
from ledger.views import Seen


async def visible(deps: Deps, contract: Contract, target: Target, asked: Asked, *, tells_foreign: bool = False) -> Seen:
    """The task that is meant, if this account may see it and the vendor still keeps it.

    Raises:
        TaskNotFound: else; that it is another account's is told of cancels only, which one vendor words otherwise.
    """
    task = await _resolve(deps, target, asked.account)
    if task is None:
        raise TaskNotFound
    return await deps.ledger.task(
        task,
        account=asked.account,
        gone=lambda found: contract.gone(found, asked.now_us),
        tells_foreign=tells_foreign,
    )


async def _resolve(deps: Deps, target: Target, account: str) -> TaskId | None:
    match target:
        case ByTask(task=task):
            return task
        case ByKey(operation=operation, key=key):
            return await deps.ledger.task_by_key(account, operation, key)
