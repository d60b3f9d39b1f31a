"""The files of proofs: the key that signs checkpoints, the last checkpoint that it signed, and notes that are given.

The key lies beside the ledger unless told otherwise, for its owner alone, and never in the log: who has only the log
signs nothing. Who can write to that folder can; so give a key of value a place of its own with ``--key``.
"""

import os
import secrets
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from ledger.notes import (
    SEED_BYTES,
    Checkpoint,
    NoteError,
    SignerKey,
    VerifierKey,
    is_name,
    opened_checkpoint,
    signer_key,
    verifier_key,
)

FILE_MAX_BYTES = 1 << 28
"""Of a file that is read whole."""
_OTHERS = stat.S_IRWXG | stat.S_IRWXO

T = TypeVar("T")

VerifierOption = Annotated[
    str | None, typer.Option("--key", metavar="KEY", help="The verifier key, as `checkpoint --verifier-key` tells it.")
]


def key_path(ledger: Path) -> Path:
    """Where the key of that ledger lies, by whatever name it is reached."""
    return _beside(ledger, ".checkpoint-key")


def kept_path(ledger: Path) -> Path:
    """Where its last checkpoint is kept."""
    return _beside(ledger, ".checkpoint")


def _beside(ledger: Path, suffix: str) -> Path:
    path = ledger.resolve()
    return path.with_name(path.name + suffix)


# Keys


def read_or_make_key(path: Path, *, origin: str) -> tuple[SignerKey, bool]:
    """The key in the file *path*, and whether it has just been made, for *origin*.

    Raises:
        typer.BadParameter: there is something else, others may read it, or it cannot be made.
    """
    if not path.exists():
        if not is_name(origin):
            raise typer.BadParameter("an origin has neither spaces nor a plus", param_hint="'--origin'")
        made = SignerKey(origin, os.urandom(SEED_BYTES))
        with suppress(FileExistsError):  # somebody else has just made one
            _put(path, f"{made.secret_text}\n", place=os.link)
            return made, True
    return _read_key(path), False


def _read_key(path: Path) -> SignerKey:
    text = read_text(path, hint="--key")
    if os.name == "posix" and path.stat().st_mode & _OTHERS:
        raise typer.BadParameter(f"others may read {path}: chmod 600 it", param_hint="'--key'")
    return _or_wrong(lambda: signer_key(text.removesuffix("\n")), what=str(path), hint="--key")


def verifier(text: str | None) -> VerifierKey:
    """The verifier key that was typed in.

    Raises:
        typer.BadParameter: none was.
    """
    if text is None:
        raise typer.BadParameter("name the verifier key that signatures are checked with", param_hint="'--key'")
    return _or_wrong(lambda: verifier_key(text), what=repr(text), hint="--key")


# Notes


def signed_checkpoint(path: Path, key: VerifierKey, *, hint: str) -> Checkpoint:
    """The checkpoint in the file *path*, if *key* signed it.

    Raises:
        typer.BadParameter: it did not.
    """
    note = read_text(path, hint=hint)
    return _or_wrong(lambda: opened_checkpoint(note, key), what=str(path), hint=hint)


def read_text(path: Path, *, hint: str) -> str:
    """The text of a file that was named by the option *hint*.

    Raises:
        typer.BadParameter: it cannot be read.
    """
    try:
        return read_bytes(path, hint=hint).decode()
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{path} is no text", param_hint=f"'{hint}'") from None


def read_bytes(path: Path, *, hint: str) -> bytes:
    """As `read_text`, of any file."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {path}: {error.strerror}", param_hint=f"'{hint}'") from None
    if len(raw) > FILE_MAX_BYTES:
        raise typer.BadParameter(f"{path} is too large", param_hint=f"'{hint}'")
    return raw


def write_out(text: str, output: Path | None) -> None:
    """Print *text*, or write it to the file *output* if there is one.

    Raises:
        typer.BadParameter: it cannot be written.
    """
    if output is None:
        print(text, end="")
        return
    try:
        if output.exists() and not output.is_file():  # a pipe, or a device
            output.write_text(text, encoding="utf-8", newline="")
        else:
            _replace(output, text)
    except OSError as error:
        raise typer.BadParameter(f"cannot write {output}: {error.strerror}", param_hint="'--output'") from error


def _replace(path: Path, text: str) -> None:
    """Let the file at *path* be *text*, whole, or stay what it is."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        draft.write_text(text, encoding="utf-8", newline="")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def keep(path: Path, note: str) -> None:
    """Put the last checkpoint in its place.

    Raises:
        typer.BadParameter: it cannot be written.
    """
    _put(path, note, place=os.replace)


def _put(path: Path, text: str, *, place: Callable[[str, Path], None]) -> None:
    """Write a file for its owner alone; it is there whole, and on disk, or not at all."""
    try:
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            place(draft, path)
        finally:
            Path(draft).unlink(missing_ok=True)
    except FileExistsError:
        raise
    except OSError as error:
        raise typer.BadParameter(f"cannot write {path}: {error.strerror}") from error


def _or_wrong(parse: Callable[[], T], *, what: str, hint: str) -> T:
    try:
        return parse()
    except NoteError as error:
        raise typer.BadParameter(f"{what}: {error}", param_hint=f"'{hint}'") from None
