"""The file that the books are in, beside the ledger's."""

from pathlib import Path

from ledger.engine import Engine
from projections.books.books import Books
from projections.side_file import beside, open_side_file


def books_of(ledger: Path) -> Path:
    """Where the books of the ledger in that file are."""
    return beside(ledger, "books")


async def open_books(path: Path, engine: Engine) -> Books:
    """The books of *engine*'s log in the file *path*, begun if there are none.

    Raises:
        CannotOpenError, StorageError: as `open_side_file`.
    """
    return await open_side_file(Books, path, engine)
