"""The address that a service listens on."""

import errno
import resource
import socket
from contextlib import suppress

import typer

from api.app import BACKLOG

ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - told apart from an address that can be asked


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is any free one.

    Raises:
        typer.BadParameter: the address is not ours, or taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (while")[0]  # it repeats the address
        hint = "; --port takes another" if isinstance(error, OSError) and error.errno == errno.EADDRINUSE else ""
        raise typer.BadParameter(f"cannot listen on {host} port {port}: {reason}{hint}") from error
    listener.settimeout(0)
    return listener


def bound_url(listener: socket.socket) -> str:
    """The address that *listener* has, which may stand for all of this machine's."""
    return _url(*listener.getsockname()[:2])


def local_url(listener: socket.socket) -> str:
    """An address at which this machine reaches *listener*."""
    host, port = listener.getsockname()[:2]
    return _url(ANYWHERE.get(host, host), port)


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def allow_files() -> None:
    """Let this process have as many files open as it may: each client that waits is one, and many begin at 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # where "no limit" cannot be asked for it stays as it is
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
