"""Why a request is not answered with film bytes: a status and a sentence, raised where it is noticed."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

ALLOWED_METHODS: Final = "GET, HEAD, OPTIONS"


class Refused(Exception):
    """The request gets `status` and `reason`; `closes` says that what follows on the connection can't be trusted.

    A refusal is about this request and this client: nothing was looked up, fetched or stored for it.
    """

    def __init__(self, status: HTTPStatus, reason: str, *, closes: bool = True) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.closes = closes


def bad_request(reason: str) -> Refused:
    """The message is malformed or ambiguous, so its end is not known for sure: 400 and close (RFC 9112 section 2.2)."""
    return Refused(HTTPStatus.BAD_REQUEST, reason)
