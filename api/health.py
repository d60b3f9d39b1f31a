"""How the service is, told to whoever asks: ``/healthz`` and ``/readyz``, which need no key."""

from collections.abc import Awaitable, Callable, Mapping

from api.contracts.shape import Answer, json_answer
from api.deps import Deps
from ledger.errors import StorageError


async def alive(_: Deps) -> Answer:
    """The process answers."""
    return json_answer(200, {"status": "alive"})


async def ready(deps: Deps) -> Answer:
    """The store answers too; and how those are that follow the log, of which no request depends on any.

    What keeps the store from taking writes does not keep it from being read. Why a follower fails is in the log: who
    asks here need not have a key.
    """
    followers = {
        one.name: {"position": one.position, "lag": one.lag, "failing": one.failure is not None}
        for one in deps.followers.states
    }
    try:
        await deps.ledger.engine.head()
    except StorageError:
        return json_answer(503, {"status": "store unavailable", "followers": followers})
    return json_answer(200, {"status": deps.ledger.engine.trouble or "ready", "followers": followers})


HEALTH: Mapping[str, Callable[[Deps], Awaitable[Answer]]] = {"/healthz": alive, "/readyz": ready}
