"""A follower's file beside the ledger, as the service keeps it: opened when first asked for, closed when it fails.

One that has failed is opened anew at the next look: it may have been put right by then, or moved away. Requests
that need it meanwhile are refused as unavailable, and everything else goes on. Why it failed is in the log; answers
tell nothing of our disks.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Generic, Self, TypeVar

from api.refusals import Unavailable
from ledger.engine import Engine
from ledger.errors import CannotOpenError, DamagedError, Fault, StorageError
from ledger.records import Head
from projections.follow import catch_up
from projections.side_file import SideFile, SideFileError

F = TypeVar("F", bound=SideFile)
T = TypeVar("T")

FILE_FAULTS = (SideFileError, CannotOpenError, DamagedError)
"""How opening, reading or writing such a file can fail."""


class Keeper(Generic[F]):
    """Keeps the side file at *path*, of which there is one open at a time."""

    unavailable: type[Unavailable] = Unavailable
    """What a request is refused with that needs the file while it cannot be had."""
    pause_seconds = 0.01
    """Between two pages of a log that is long behind, in which everybody else is served."""

    def __init__(self, engine: Engine, path: Path, open_file: Callable[[Path, Engine], Awaitable[F]]) -> None:
        self._engine, self.path, self._open_file = engine, path, open_file
        self._file: F | None = None
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the file; whoever asks for it after that opens it anew."""
        async with self._opening:
            file, self._file = self._file, None
        if file is not None:
            await file.close()

    async def follow(self) -> int:
        """Bring the file to the end of the log as it is now; the position of that end.

        Raises:
            SideFileError, CannotOpenError, DamagedError, StorageError: why it cannot be.
        """
        async with self._opened() as file:
            return (await self._catch_up(file, pause_seconds=self.pause_seconds)).position

    async def consult(self, work: Callable[[F], Awaitable[T]]) -> T:
        """What *work* makes of the file, which has been brought up to the end of the log.

        Raises:
            Unavailable: the file could not be opened, read or written.
            StorageError: the log could not be read.
        """
        with self._refusing():
            async with self._asked() as file:
                await self._catch_up(file)
                return await work(file)

    async def peek(self, work: Callable[[F], Awaitable[T]]) -> T:
        """What *work* makes of the file as it is, up to its last page.

        Raises:
            Unavailable: it could not be opened or read.
        """
        with self._refusing((*FILE_FAULTS, StorageError)):
            async with self._asked() as file:
                return await work(file)

    async def _catch_up(self, file: F, *, pause_seconds: float = 0) -> Head:
        """Bring *file* to the end of the log as it is now; that end."""
        return await catch_up(self._engine, file, pause_seconds=pause_seconds)

    def _asked(self) -> AbstractAsyncContextManager[F]:
        """The file, for a request."""
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[F]:
        """The file; it is closed when it fails while it is used."""
        async with self._opening:
            if self._file is None:
                self._file = await self._open_file(self.path, self._engine)
            file = self._file
        try:
            yield file
        except SideFileError:
            await self._give_up(file)
            raise

    async def _give_up(self, file: F) -> None:
        """Close the file, which has failed, unless somebody else met that before: then another one may be open."""
        if self._file is file:
            await self.close()

    @contextmanager
    def _refusing(self, faults: tuple[type[Fault], ...] = FILE_FAULTS) -> Iterator[None]:
        """Refuse the request as `unavailable` when one of *faults* comes up."""
        try:
            yield
        except faults as fault:
            raise self.unavailable from fault
