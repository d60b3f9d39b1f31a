"""What the native API says of the books: the same figures as ``task-ledger report --json``, to the letter."""

from api.contracts.shape import Answer, Asked, json_answer
from api.deps import Deps
from api.native_queries import only
from api.refusals import Invalid
from projections.places import NoSuchPlaceError
from projections.reports.parameters import NAMES, WrongWordError, wanted_of


async def summary(deps: Deps, asked: Asked) -> Answer:
    """The report that the query asks for, as known at its position or now."""
    only(asked, NAMES)
    try:
        return json_answer(200, await deps.books.draw(wanted_of(asked.query)))
    except WrongWordError as wrong:
        raise Invalid(str(wrong), param=wrong.name) from None
    except NoSuchPlaceError as wrong:
        raise Invalid(str(wrong), param="at") from None
