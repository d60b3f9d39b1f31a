"""The journal for Beancount: every account opened, balances asserted to the micro-credit. Pure.

Source: the Beancount language syntax: a part of an account's name begins with a capital or a digit and goes on with
letters, digits and dashes; a balance holds at the beginning of its day, and within a tolerance unless one is named.
"""

from collections.abc import Iterator
from string import ascii_letters, digits

from projections.reports.journal import COMMODITY, Account, Balance, Entry, Heading, Item, Journal, amount_text
from projections.reports.report import day_text

ROOTS = {
    Heading.CUSTOMERS: "Liabilities:Customers",
    Heading.HELD: "Liabilities:Held",
    Heading.REVENUE: "Income:Usage",
    Heading.COST: "Expenses:Providers",
    Heading.PAYABLE: "Liabilities:Providers",
    Heading.OPENING: "Equity:Opening",
}
_PLAIN = frozenset(ascii_letters + digits)
_EXACTLY = f"~ 0.0000001 {COMMODITY}"
"""Less than the least amount there is."""


def journal_text(journal: Journal) -> str:
    """The file."""
    first = day_text(journal.first_day)
    head = [f"; {note}" for note in journal.notes]
    head += ["", 'option "title" "Task Ledger"', f'option "operating_currency" "{COMMODITY}"', ""]
    for account in journal.accounts:
        head.append(f"{first} open {name_of(account)} {COMMODITY}")
        if account.names:
            head.append(f"  name: {_quoted('/'.join(account.names))}")
    return "".join(f"{line}\n" for line in (*head, *(line for item in journal.items for line in _lines(item))))


def name_of(account: Account) -> str:
    """The account's name; no two have the same."""
    return ":".join((ROOTS[account.heading], *map(escape, account.names)))


def escape(name: str) -> str:
    """*name* after ``N-``, its dashes doubled, and whatever is neither letter nor digit as a dash and its number."""
    return "N-" + "".join(char if char in _PLAIN else _escaped(char) for char in name)


def _escaped(char: str) -> str:
    return "--" if char == "-" else "".join(f"-{byte:02x}" for byte in char.encode())


def _lines(item: Item) -> Iterator[str]:
    yield ""
    match item:
        case Entry(payee=payee, narration=narration):
            yield f"{day_text(item.day)} * {_quoted(payee)} {_quoted(narration)}"
            yield from (f"  {name_of(leg.account)}  {amount_text(leg.micros)}" for leg in item.legs)
        case Balance():
            for leg in item.legs:
                amount = amount_text(leg.micros).removesuffix(COMMODITY)
                yield f"{day_text(item.day + 1)} balance {name_of(leg.account)}  {amount}{_EXACTLY}"


def _quoted(text: str) -> str:
    backslashed = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{backslashed}"'
