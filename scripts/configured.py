"""The configuration that a verb is told of with ``--config``, and what is said when it is wrong."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from api import settings
from ledger.catalogue import Catalogue


def settings_in(config: Path | None) -> settings.Settings:
    """The settings in that file; None: those that hold without one.

    Raises:
        typer.BadParameter: they cannot be read, or mean nothing.
    """
    with _told():
        return settings.read(config)


def catalogue_of(found: settings.Settings) -> Catalogue:
    """The models and prices that the settings name.

    Raises:
        typer.BadParameter: as `settings_in`.
    """
    with _told():
        return found.models()


@contextmanager
def _told() -> Iterator[None]:
    """What is wrong with the configuration, or a file that it names, without the system's numbers."""
    try:
        yield
    except OSError as error:
        raise typer.BadParameter(f"{error.filename}: {error.strerror}", param_hint="'--config'") from error
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--config'") from error
