"""Who is let in: log-in, sessions, and what every answer says to browsers.

A session is a random secret in a cookie (HttpOnly, SameSite=Strict, with https Secure and `__Host-`). What changes
something wants the session's CSRF token in a header besides, which no page of another site can know or send, and is
refused where the browser says that another site asks. Log-in is limited by network and by name; only failures count,
and who logged in from an address before is not shut out by others' failures with that name.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import secrets
from collections.abc import Awaitable, Callable
from html import escape
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import hdrs, web
from cachetools import TTLCache

from admin.console.accounts import MOST_PASSWORD, Accounts, Role
from admin.console.ledger import Entry, Ledger, Session, digest
from admin.console.oidc import NotLetIn, Provider
from admin.console.settings import Settings
from admin.errors import AdminError

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SESSION: Final = web.RequestKey("session", Session)
_CSRF: Final = "X-CSRF-Token"
_PENDING: Final = "oca-console-sso"
_PENDING_FOR: Final = 600
_TOUCH: Final = 60.0
_OPEN: Final = frozenset({"/login", "/sso", "/sso/back", "/assets/console.css", "/assets/icon.svg", "/healthz"})
"""Paths that need no session."""
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not "no-referrer": with that, browsers say "Origin: null" of our own log-in form.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=()",
}
_ADDRESS_TRIES: Final = 10
_NAME_TRIES: Final = 20
_TRIES_FOR: Final = 300.0
"""Seconds in which so many failures are allowed."""
_AT_HOME_FOR: Final = 30 * 86400.0
_MOST_KEYS: Final = 20_000


class Tries:
    """Log-ins that failed, or may yet, by key; bounded."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._failed: TTLCache[str, int] = TTLCache(_MOST_KEYS, _TRIES_FOR, clock)

    def are_up(self, key: str) -> bool:
        return self._failed.get(key, 0) >= self._most

    def begin(self, key: str) -> None:
        """Counted before it is known what comes of it, or a thousand at once would all be let try."""
        self._failed[key] = self._failed.get(key, 0) + 1

    def forgive(self, key: str) -> None:
        if key in self._failed:
            self._failed[key] -= 1


class Door:
    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        provider: Provider | None,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._accounts = Accounts(settings.account)
        self._ledger = ledger
        self._provider = provider
        self._clock = clock
        self._addresses = Tries(_ADDRESS_TRIES, clock)
        self._names = Tries(_NAME_TRIES, clock)
        self._at_home: TTLCache[tuple[str, str], bool] = TTLCache(_MOST_KEYS, _AT_HOME_FOR, clock)
        self._proxies = [ipaddress.ip_network(network) for network in settings.proxies]
        self._origin = settings.origin
        self._is_secure = self._origin.startswith("https:")
        self.headers = dict(_HEADERS)
        """Of every answer."""
        if self._is_secure:
            self.headers["Strict-Transport-Security"] = "max-age=31536000"
        self._cookie = "__Host-oca-console" if self._is_secure else "oca-console"

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/login", self._show_form)
        app.router.add_post("/login", self._log_in)
        app.router.add_post("/logout", self._log_out)
        app.router.add_get("/sso", self._go)
        app.router.add_get("/sso/back", self._come_back)

    # --- Before every handler ---

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets in who may, and hardens what goes out."""
        try:
            answer = await self._guarded(request, handler)
        except web.HTTPException as error:
            if error.status < HTTPStatus.BAD_REQUEST:
                self._harden(error)
                raise
            answer = web.json_response({"error": error.text or error.reason}, status=error.status)
        except Exception:
            # A mistake of ours: it is in the log, and what the browser gets is hardened all the same.
            log.exception("%s %s failed", request.method, request.path)
            answer = web.json_response({"error": "the console failed; its log says how"}, status=500)
        if not answer.prepared:
            self._harden(answer)
        return answer

    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method not in {"GET", "HEAD"} and not self._is_ours(request):
            raise web.HTTPForbidden(text=f"asked for by a page of another site; allowed: pages of {self._origin}")
        if request.path in _OPEN:
            return await handler(request)
        session = await self._session(request)
        if session is None:
            if request.path.startswith("/api/") or request.method != "GET":
                raise web.HTTPUnauthorized(text="log in first: the session is over, or there is none")
            raise web.HTTPSeeOther("/login")
        if request.method not in {"GET", "HEAD"} and not _same(request.headers.get(_CSRF, ""), session.csrf):
            raise web.HTTPForbidden(text=f"the header {_CSRF} is not what /api/me said")
        request[SESSION] = session
        return await handler(request)

    async def _session(self, request: web.Request) -> Session | None:
        secret = request.cookies.get(self._cookie, "")
        session = await self._ledger.session(secret) if secret else None
        if session is None:
            return None
        now, rules = self._clock(), self._settings.sessions
        if now - session.seen_at > rules.idle or now - session.begun_at > rules.longest:
            await self._ledger.end(session.id)
            return None
        if session.is_local:
            # Whoever was taken out of the settings, or got another role there, is so at once.
            account = self._accounts[session.name]
            if account is None:
                await self._ledger.end(session.id)
                return None
            session = msgspec.structs.replace(session, role=account.role)
        if now - session.seen_at > _TOUCH:
            await self._ledger.touch(session, now)
        return session

    def _is_ours(self, request: web.Request) -> bool:
        """What browsers say of the page that asks. Programs that are none say nothing."""
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None:
            return origin == self._origin
        return request.headers.get("Sec-Fetch-Site", "same-origin") in {"same-origin", "none"}

    async def is_over(self, request: web.Request) -> bool:
        """Whether the session that a long answer began with has ended."""
        return await self._session(request) is None

    def _harden(self, answer: web.StreamResponse) -> None:
        for name, value in self.headers.items():
            answer.headers.setdefault(name, value)

    def address(self, request: web.Request) -> str:
        """The client's, as the last proxy that is not ours saw it."""
        seen = request.remote or ""
        for hop in reversed(request.headers.get("X-Forwarded-For", "").split(",")):
            if not self._is_proxy(seen):
                break
            seen = hop.strip() or seen
        return seen[:100]

    def _is_proxy(self, address: str) -> bool:
        try:
            there = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(there in network for network in self._proxies)

    # --- Log-in ---

    async def _show_form(self, request: web.Request) -> web.Response:
        if await self._session(request) is not None:
            raise web.HTTPSeeOther("/")
        return self._form()

    def _form(self, wrong: str = "", status: HTTPStatus = HTTPStatus.OK) -> web.Response:
        oidc = self._settings.oidc
        parts = []
        if wrong:
            parts.append(f'<p class="wrong" role="alert">{escape(wrong)}</p>')
        if oidc is not None:
            parts.append(f'<p><a class="button" href="/sso">{escape(oidc.title)}</a></p>')
        if self._settings.account:
            parts.append(_FIELDS)
        return web.Response(text=_PAGE.format(body="".join(parts)), content_type="text/html", status=status)

    async def _log_in(self, request: web.Request) -> web.Response:
        try:
            form = await request.post()
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"not what a form says: {error}") from error
        name, password = form.get("name", ""), form.get("password", "")
        if not isinstance(name, str) or not isinstance(password, str) or len(password) > MOST_PASSWORD:
            return self._form("That was no name and password.", HTTPStatus.BAD_REQUEST)
        address = self.address(request)
        network, is_at_home = _network(address), (name, address) in self._at_home
        if self._addresses.are_up(network) or (self._names.are_up(name) and not is_at_home):
            return self._form("Too many failures. Wait five minutes.", HTTPStatus.TOO_MANY_REQUESTS)
        self._addresses.begin(network)
        self._names.begin(name)
        account = await self._accounts.verified(name, password)
        if account is not None:
            self._addresses.forgive(network)
            self._names.forgive(name)
            self._at_home[name, address] = True
        else:
            log.warning("log-in of %r from %s failed", name[:100], address)
            await self._note(name, "", address, "log-in", "failed")
            return self._form("Name or password is wrong.", HTTPStatus.UNAUTHORIZED)
        return await self._enter(account.name, account.role, address, is_local=True)

    async def _log_out(self, request: web.Request) -> web.Response:
        session = request[SESSION]
        await self._ledger.end(session.id)
        await self._note(session.name, session.role, self.address(request), "log-out", "done")
        answer = web.json_response({"left": True})
        answer.del_cookie(self._cookie, path="/")
        return answer

    async def _enter(self, name: str, role: Role, address: str, *, is_local: bool) -> web.Response:
        secret, now = secrets.token_urlsafe(32), self._clock()
        await self._ledger.end_older(now - self._settings.sessions.idle, now - self._settings.sessions.longest)
        await self._ledger.begin(
            Session(
                id=digest(secret),
                name=name,
                role=role,
                is_local=is_local,
                csrf=secrets.token_urlsafe(32),
                address=address,
                begun_at=now,
                seen_at=now,
            )
        )
        await self._note(name, role, address, "log-in", "done")
        # Not a redirection: a strict cookie does not go along with one that another site began.
        answer = web.Response(text=_COME_IN, content_type="text/html")
        answer.set_cookie(
            self._cookie,
            secret,
            max_age=int(self._settings.sessions.longest),
            path="/",
            httponly=True,
            secure=self._is_secure,
            samesite="Strict",
        )
        return answer

    # --- Single sign-on ---

    async def _go(self, _: web.Request) -> web.Response:
        if self._provider is None:
            raise web.HTTPNotFound(text="there is no [oidc] in the settings")
        try:
            begun = await self._provider.begin(f"{self._origin}/sso/back")
        except AdminError as error:
            return self._form(str(error), HTTPStatus.BAD_GATEWAY)
        answer = web.Response(status=HTTPStatus.SEE_OTHER, headers={hdrs.LOCATION: begun.url})
        answer.set_cookie(
            _PENDING,
            begun.state,
            max_age=_PENDING_FOR,
            path="/sso",
            httponly=True,
            secure=self._is_secure,
            samesite="Lax",
        )
        return answer

    async def _come_back(self, request: web.Request) -> web.Response:
        if self._provider is None:
            raise web.HTTPNotFound(text="there is no [oidc] in the settings")
        address = self.address(request)
        state = request.query.get("state", "")
        if not state or not _same(request.cookies.get(_PENDING, ""), state):
            return self._form("This log-in was not begun here, or too long ago. Try again.", HTTPStatus.BAD_REQUEST)
        try:
            person = await self._provider.finish(state, request.query)
        except NotLetIn as error:
            await self._note(error.name, "", address, "log-in", f"refused: {error}")
            return self._form(str(error), HTTPStatus.FORBIDDEN)
        except AdminError as error:
            log.warning("single sign-on from %s failed: %s", address, error)
            await self._note("", "", address, "log-in", f"failed: {error}")
            return self._form(str(error), HTTPStatus.BAD_GATEWAY)
        answer = await self._enter(person.name, person.role, address, is_local=False)
        answer.del_cookie(_PENDING, path="/sso")
        return answer

    async def _note(self, who: str, role: str, address: str, what: str, outcome: str) -> None:
        entry = Entry(
            at=self._clock(), who=who, role=role, address=address, what=what, about="", why="", outcome=outcome
        )
        await self._ledger.note(entry)


def _same(one: str, other: str) -> bool:
    """In the same time, whatever they are. Headers that are no UTF-8 come with surrogates."""
    return hmac.compare_digest(*(text.encode(errors="surrogateescape") for text in (one, other)))


def _network(address: str) -> str:
    """Of IPv6 the /64, of which one host has all addresses."""
    try:
        there = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((there, 64), strict=False)) if there.version == 6 else address


def require(request: web.Request, role: Role) -> Session:
    """The session of who asks. Raises HTTPForbidden where that one may not."""
    session = request[SESSION]
    if not session.role.may(role):
        raise web.HTTPForbidden(text=f"{session.name} is {session.role}; allowed: {role}")
    return session


_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Log in - OCA console</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="/assets/icon.svg">
<link rel="stylesheet" href="/assets/console.css"></head>
<body class="login"><main><h1>OCA console</h1>{body}</main></body></html>"""
_FIELDS: Final = """<form method="post" action="/login">
<label for="name">Name</label><input id="name" name="name" autocomplete="username" required maxlength="100" autofocus>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required maxlength="1024">
<button type="submit">Log in</button></form>"""
_COME_IN: Final = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Logged in - OCA console</title>
<meta http-equiv="refresh" content="0; url=/"></head><body><p><a href="/">Go on</a></p></body></html>"""
