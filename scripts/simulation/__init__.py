"""A made-up history of a gateway, and what one of its providers bills for it: pure, and the same for the same seed.

Who orders what is `market`, when is `arrivals`, what becomes of one task is `lives`, and all of it in order of time is
`history`. Nothing here writes an event: the commands are decided by the ledger's own rules, as everybody's are.
`bills` and `faults` make a provider's statement of what the ledger then says.
"""

from random import Random


def dice_for(seed: int, *purpose: object) -> Random:
    """The dice of one purpose: what is thrown for another one changes nothing here."""
    return Random(" ".join(map(str, (seed, *purpose))))  # noqa: S311 - made-up lives, the same for the same seed
