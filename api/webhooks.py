"""The webhooks of an account, as its clients see to them: what a contract's row wishes, carried out."""

from api.contracts.hooks import AddHook, ChangeHook, HookDeliveries, HookTold, HookWish, ListHooks, RemoveHook
from api.contracts.shape import Answer, Asked, Contract, Hooks
from api.deps import Deps
from ledger.callbacks import AddWebhook, Arranged, CallbackCommand, ChangeWebhook, RemoveWebhook, Webhook, seal_secret
from ledger.errors import UnknownWebhook
from ledger.seals import NONCE_BYTES

ID_BYTES = 16
SECRET_BYTES = 16
"""32 hex digits, as the one vendor that has webhooks says of those that are generated."""


async def webhooks(deps: Deps, contract: Contract, operation: Hooks, asked: Asked) -> Answer:
    """Carry out what is wished of the account's webhooks of this contract.

    Raises:
        Invalid: the request cannot be read, or its address is none that is posted to.
        UnknownWebhook, TooManyWebhooks: as `decide_callback`.
    """
    return operation.answer(asked, await _told(deps, contract, operation.wish(asked), asked))


async def _told(deps: Deps, contract: Contract, wish: HookWish, asked: Asked) -> HookTold:
    match wish:
        case ListHooks():
            arranged = await deps.ledger.callbacks.arranged(asked.account)
            return HookTold([hook for hook in arranged.webhooks.values() if hook.contract == contract.name])
        case AddHook():
            return await _add(deps, contract, wish, asked)
        case ChangeHook():
            return await _change(deps, contract, wish, asked)
        case RemoveHook(webhook_id=webhook_id):
            await _own(deps, contract, webhook_id, asked)
            await _carry_out(deps, RemoveWebhook(at_us=asked.now_us, webhook_id=webhook_id), asked)
            return HookTold()
        case HookDeliveries(webhook_id=webhook_id, limit=limit, skip=skip):
            await _own(deps, contract, webhook_id, asked)
            rows, total = await deps.callbacks.consult(
                lambda queue: queue.of_webhook(asked.account, webhook_id, limit=limit, skip=skip)
            )
            return HookTold(deliveries=rows, total=total)


async def _add(deps: Deps, contract: Contract, wish: AddHook, asked: Asked) -> HookTold:
    deps.callbacks.egress.check(wish.url, "url")
    webhook_id = f"wh_{deps.entropy(ID_BYTES).hex()}"
    secret = deps.entropy(SECRET_BYTES).hex() if wish.secret is None else wish.secret
    add = AddWebhook(
        at_us=asked.now_us,
        webhook_id=webhook_id,
        contract=contract.name,
        url=wish.url,
        tells=wish.tells,
        sealed_secret=_sealed(deps, secret, webhook_id),
    )
    arranged = await _carry_out(deps, add, asked)
    return HookTold([arranged.webhook(webhook_id)], secret)


async def _change(deps: Deps, contract: Contract, wish: ChangeHook, asked: Asked) -> HookTold:
    deps.callbacks.egress.check(wish.url, "url")
    await _own(deps, contract, wish.webhook_id, asked)
    change = ChangeWebhook(
        at_us=asked.now_us,
        webhook_id=wish.webhook_id,
        url=wish.url,
        tells=wish.tells,
        enabled=wish.enabled,
        sealed_secret=None if wish.secret is None else _sealed(deps, wish.secret, wish.webhook_id),
    )
    arranged = await _carry_out(deps, change, asked)
    return HookTold([arranged.webhook(wish.webhook_id)])


async def _own(deps: Deps, contract: Contract, webhook_id: str, asked: Asked) -> Webhook:
    """The account's webhook of this contract.

    Raises:
        UnknownWebhook: it has none of that name.
    """
    found = (await deps.ledger.callbacks.arranged(asked.account)).webhook(webhook_id)
    if found.contract != contract.name:
        raise UnknownWebhook(webhook_id)
    return found


async def _carry_out(deps: Deps, command: CallbackCommand, asked: Asked) -> Arranged:
    return await deps.ledger.callbacks.carry_out(command, account=asked.account, by=asked.key_id)


def _sealed(deps: Deps, secret: str, webhook_id: str) -> str:
    pepper, nonce = deps.ledger.callbacks.pepper, deps.entropy(NONCE_BYTES)
    return seal_secret(secret, pepper=pepper, nonce=nonce, webhook_id=webhook_id)
