"""The journal for hledger: balances are asserted in transactions that move nothing. Pure.

Source: the hledger manual, "Journal" (account names, two blanks before an amount, ``= AMOUNT`` after it).
"""

from collections.abc import Iterator
from string import ascii_letters, digits

from projections.reports.journal import COMMODITY, Account, Balance, Entry, Heading, Item, Journal, Leg, amount_text
from projections.reports.report import day_text

ROOTS = {
    Heading.CUSTOMERS: "liabilities:customers",
    Heading.HELD: "liabilities:held",
    Heading.REVENUE: "income:usage",
    Heading.COST: "expenses:providers",
    Heading.PAYABLE: "liabilities:providers",
    Heading.OPENING: "equity:opening",
}
_PLAIN = frozenset(ascii_letters + digits + "._@+/-")


def journal_text(journal: Journal) -> str:
    """The file."""
    head = [f"; {note}" for note in journal.notes]
    head += ["", "decimal-mark .", f"commodity 1.000000 {COMMODITY}", ""]
    head += [f"account {name_of(account)}" for account in journal.accounts]
    return "".join(f"{line}\n" for line in (*head, *(line for item in journal.items for line in _lines(item))))


def name_of(account: Account) -> str:
    """The account's name; no two have the same."""
    return ":".join((ROOTS[account.heading], *map(escape, account.names)))


def escape(name: str) -> str:
    """*name* with whatever may mean something to hledger as ``%XX``, and no name as ``%``, which is never plain."""
    spelled = (char if char in _PLAIN else "".join(f"%{byte:02X}" for byte in char.encode()) for char in name)
    return "".join(spelled) or "%"


def _lines(item: Item) -> Iterator[str]:
    yield ""
    match item:
        case Entry(payee=payee, narration=narration):
            yield f"{day_text(item.day)} {escape(payee)} | {' '.join(map(escape, narration.split(' ')))}"
            yield from (_leg(leg, amount_text(leg.micros)) for leg in item.legs)
        case Balance():
            yield f"{day_text(item.day)} balances"
            yield from (_leg(leg, f"{amount_text(0)} = {amount_text(leg.micros)}") for leg in item.legs)


def _leg(leg: Leg, amount: str) -> str:
    return f"    {name_of(leg.account)}  {amount}"
