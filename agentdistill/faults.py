"""What an environment does wrong, told in one bounded line that names the environment and the call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from agentdistill.errors import UserError
from agentdistill.rendering import said

LONGEST = 400  # characters of somebody else's error message that are shown


class EnvironmentFault(UserError):
    """An environment raised, or broke its contract; the message says which and how."""


class Breach(Exception):
    """An answer that breaks the contract; its text says what was answered."""


@contextlib.contextmanager
def blame(env_id: str, call: str, passing: type[Exception] = EnvironmentFault) -> Iterator[None]:
    """Turn whatever is raised inside into an `EnvironmentFault`, `sys.exit` included; only Ctrl-C and `passing` pass.

    Raises:
        EnvironmentFault: naming the environment and the call.
    """
    try:
        yield
    except (KeyboardInterrupt, passing):
        raise
    except BaseException as error:
        raise fault(env_id, call, error) from error


def fault(env_id: str, call: str, error: BaseException) -> EnvironmentFault:
    """The fault that an exception of an environment amounts to."""
    return EnvironmentFault(f"environment '{env_id}' failed in {call}: {described(error)}")


def described(error: BaseException) -> str:
    """An exception's type and message in one line; our own errors are sentences already and need no type."""
    message = one_line(said(error))
    if message and isinstance(error, Breach | UserError):
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def one_line(text: str, limit: int = LONGEST) -> str:
    """Text as one line of at most `limit` characters and a mark; what cannot be printed is a question mark."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text[: 4 * limit].split()))
    return line if len(line) <= limit and len(text) <= 4 * limit else f"{line[:limit]} …"


def require_text(value: object, what: str) -> str:
    """The value itself, where it is a string of valid Unicode.

    Raises:
        Breach: naming `what` (`an observation`, say) otherwise.
    """
    if not isinstance(value, str):
        raise Breach(f"{what} is of type {type(value).__name__}, not a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Breach(f"{what} is no valid Unicode ({error.reason} at character {error.start})") from error
    return value
