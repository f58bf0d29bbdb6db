"""What Python's ssl does not offer of OpenSSL: keys of session tickets that several processes share.

Reached by ctypes, in the very library that `_ssl` loaded. Where that can't be had (another interpreter, OpenSSL built
into it), `share_tickets` says why not, and each process has tickets of its own as ever.
"""

from __future__ import annotations

import _ssl
import ctypes
import logging
import os
import ssl
import sys
from collections.abc import Callable
from typing import Any, Final

log = logging.getLogger(__name__)

NAME_BYTES: Final = 16
KEY_BYTES: Final = 80
"""Of a ticket's key: its name, which stands in the ticket, then the keys of HMAC-SHA-256 and AES-256, 32 bytes each."""
_SET_TICKET_CALLBACK: Final = 72
"""SSL_CTRL_SET_TLSEXT_TICKET_KEY_CB"""
_IV_BYTES: Final = 16
_CONTEXT_AT: Final = 16
"""Where a context object of CPython keeps its SSL_CTX *: behind the head that every object has."""
_UNKNOWN, _GOOD, _RENEW = 0, 1, 2
_CALLBACK: Final = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int
)

Keys = tuple[bytes, ...]
"""The key that tickets are given out under, and those that are honoured besides."""


class TicketsNotShared(Exception):
    """This interpreter does not let us; the sentence says why."""


class _Library:
    """OpenSSL's functions. Raises `TicketsNotShared`."""

    def __init__(self) -> None:
        if sys.implementation.name != "cpython" or not (3, 11) <= sys.version_info[:2] <= (3, 14):
            raise TicketsNotShared(f"unknown interpreter {sys.implementation.name} {sys.version.split()[0]}")
        if ssl.OPENSSL_VERSION_INFO[0] != 3:
            raise TicketsNotShared(f"unknown {ssl.OPENSSL_VERSION}")
        try:
            # Its symbols, and those of the libraries that it was linked with.
            library = ctypes.CDLL(_ssl.__file__)
            pointer, number = ctypes.c_void_p, ctypes.c_int
            self.get_options = _declared(library.SSL_CTX_get_options, ctypes.c_uint64, pointer)
            self.set_callback = _declared(library.SSL_CTX_callback_ctrl, ctypes.c_long, pointer, number, _CALLBACK)
            five = (pointer, pointer, pointer, ctypes.c_char_p, ctypes.c_char_p)
            self.encrypt = _declared(library.EVP_EncryptInit_ex, number, *five)
            self.decrypt = _declared(library.EVP_DecryptInit_ex, number, *five)
            self.hmac = _declared(library.HMAC_Init_ex, number, pointer, ctypes.c_char_p, number, pointer, pointer)
            self.aes = _declared(library.EVP_aes_256_cbc, pointer)()
            self.sha = _declared(library.EVP_sha256, pointer)()
        except (AttributeError, OSError) as error:
            raise TicketsNotShared(f"OpenSSL can't be reached: {error}") from error

    def context(self, context: ssl.SSLContext) -> int:
        """The SSL_CTX * of a context: what lies there must have the context's own options."""
        if type(context).__basicsize__ < _CONTEXT_AT + ctypes.sizeof(ctypes.c_void_p):
            raise TicketsNotShared("a context is not what it used to be")
        found = ctypes.c_void_p.from_address(id(context) + _CONTEXT_AT).value
        if not found or self.get_options(found) & 0xFFFFFFFF != context.options & 0xFFFFFFFF:
            raise TicketsNotShared("a context is not what it used to be")
        return found


def share_tickets(context: ssl.SSLContext, keys: Callable[[], Keys]) -> None:
    """Have a server's context give out tickets under the first of `keys()`, and honour those of all of them.

    Raises `TicketsNotShared`, and then nothing has changed.
    """
    library = _Library()
    where = library.context(context)

    def ticket(_ssl_at: int, name: int, iv: int, cipher: int, mac: int, gives: int) -> int:
        """ssl_ctx_set_tlsext_ticket_key_cb(3)"""
        known = keys()
        if gives:
            key, start = known[0], os.urandom(_IV_BYTES)
            ctypes.memmove(name, key, NAME_BYTES)
            ctypes.memmove(iv, start, _IV_BYTES)
            is_set = library.encrypt(cipher, library.aes, None, key[48:], start)
            return _GOOD if is_set and library.hmac(mac, key[16:48], 32, library.sha, None) else -1
        wanted = ctypes.string_at(name, NAME_BYTES)
        for place, key in enumerate(known):
            if key[:NAME_BYTES] == wanted:
                start = ctypes.string_at(iv, _IV_BYTES)
                is_set = library.hmac(mac, key[16:48], 32, library.sha, None)
                if not is_set or not library.decrypt(cipher, library.aes, None, key[48:], start):
                    return -1
                return _RENEW if place else _GOOD
        return _UNKNOWN

    callback = _CALLBACK(ticket)
    if not library.set_callback(where, _SET_TICKET_CALLBACK, callback):
        raise TicketsNotShared("OpenSSL refuses")
    # It may be called as long as the context lives.
    context.oca_tickets = callback  # type: ignore[attr-defined]


def _declared(function: Any, result: Any, *arguments: Any) -> Any:  # noqa: ANN401 - ctypes' own
    function.restype = result
    function.argtypes = arguments
    return function
