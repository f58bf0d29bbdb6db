"""Messages as JSON bytes, both ways.

A reader skips fields it does not know (a fleet is always half-upgraded); only a document of a later *schema* is
refused, because then a field it does know may mean something else.
"""

from typing import TypeVar

import msgspec

MessageT = TypeVar("MessageT", bound=msgspec.Struct)


class WireError(ValueError):
    """The bytes are not the message that was expected; the text says what is wrong and where."""


def encode(message: msgspec.Struct) -> bytes:
    """The message as UTF-8 JSON, fields in their declared order: equal messages give equal bytes."""
    return msgspec.json.encode(message, order="deterministic")


def decode(body: bytes, kind: type[MessageT]) -> MessageT:
    """The message of this kind that `body` holds. Raises WireError."""
    try:
        return msgspec.json.decode(body, type=kind)
    # RecursionError: thousands of brackets, from somebody who hopes that nobody thought of it.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a {kind.__name__}: {error}") from error
