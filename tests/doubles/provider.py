"""An OpenID Connect provider over real HTTP: discovery, authorization with PKCE, tokens signed with RS256, keys."""

import hashlib
import json
import secrets
import threading
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.doubles.appliance import PATIENCE

CLIENT, SECRET = "oca console", "a secret: with %signs"


class Provider:
    """`claims` are of who logs in next; the others are lies that it tells."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.signing = self._key
        """Another one: signed by somebody else."""
        self.claims: dict[str, Any] = {}
        self.issuer_said: str | None = None
        self.error: str | None = None
        self.tells_algorithm = "RS256"
        self._waiting: dict[str, dict[str, str]] = {}
        self.url = ""

    # --- What it answers ---

    def metadata(self) -> dict[str, str]:
        return {
            "issuer": self.issuer_said or self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
        }

    def keys(self) -> dict[str, Any]:
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key()))
        return {"keys": [{**public, "kid": "one", "use": "sig", "alg": "RS256"}]}

    def authorize(self, query: dict[str, str]) -> str:
        """Where the browser is sent. Whoever comes is logged in already."""
        assert (query["response_type"], query["client_id"], query["code_challenge_method"]) == ("code", CLIENT, "S256")
        assert "openid" in query["scope"].split()
        if self.error is not None:
            return f"{query['redirect_uri']}?{urlencode({'error': self.error, 'state': query['state']})}"
        code = secrets.token_urlsafe(16)
        self._waiting[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def token(self, form: dict[str, str], authorization: str) -> dict[str, str] | None:
        """None: the code, its verifier or who asks is not right."""
        name, _, secret = b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        asked = self._waiting.pop(form["code"], None)
        challenge = urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        if asked is None or (unquote(name), unquote(secret)) != (CLIENT, SECRET):
            return None
        if challenge != asked["code_challenge"] or form["redirect_uri"] != asked["redirect_uri"]:
            return None
        now = int(time.time())
        told = {"iss": self.url, "aud": CLIENT, "sub": "1", "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        if self.tells_algorithm == "none":
            token = jwt.encode(told | self.claims, None, algorithm="none")
        else:
            token = jwt.encode(told | self.claims, self.signing, algorithm="RS256", headers={"kid": "one"})
        return {"id_token": token, "access_token": "x", "token_type": "Bearer"}


@contextmanager
def provider() -> Iterator[Provider]:
    it = Provider()

    class Handler(BaseHTTPRequestHandler):
        timeout = PATIENCE

        def do_GET(self) -> None:
            path, query = urlsplit(self.path).path, _single(urlsplit(self.path).query)
            if path == "/authorize":
                self.send_response(302)
                self.send_header("Location", it.authorize(query))
                self.end_headers()
            elif path in {"/.well-known/openid-configuration", "/keys"}:
                self._say(200, it.keys() if path == "/keys" else it.metadata())
            else:
                self._say(404, {})

        def do_POST(self) -> None:
            form = _single(self.rfile.read(int(self.headers["Content-Length"])).decode())
            told = it.token(form, self.headers.get("Authorization", ""))
            self._say(400 if told is None else 200, told or {"error": "invalid_grant"})

        def _say(self, status: int, what: Any) -> None:
            body = json.dumps(what).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        it.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield it
        finally:
            server.shutdown()
            thread.join()


def _single(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query).items()}
