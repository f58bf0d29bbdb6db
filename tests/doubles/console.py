"""A real console: `oca-admin serve` as a process of its own, and people who are logged in there."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from admin.console.accounts import hashed
from tests.doubles.appliance import PATIENCE, Got, as_toml, exchange, free_port, wait_until

PASSWORD = "correct horse battery staple"
_HASHES: dict[str, str] = {}


def password_hash() -> str:
    """Made once: it takes 50 ms, as it should."""
    return _HASHES.setdefault(PASSWORD, hashed(PASSWORD))


def accounts() -> list[dict[str, str]]:
    return [
        {"name": name, "role": role, "password": password_hash()}
        for name, role in (("vera", "viewer"), ("olaf", "operator"), ("ada", "admin"))
    ]


class Person:
    """Somebody who is logged in: asks with the session's cookie and CSRF token."""

    def __init__(self, port: int, cookie: str) -> None:
        self._port = port
        self.cookie = cookie
        self.csrf = ""
        self.csrf = self.get("/api/me").json()["csrf"]

    def get(self, path: str) -> Got:
        return exchange(self._port, "GET", path, {"Cookie": self.cookie})

    def post(self, path: str, order: Any, **headers: str) -> Got:
        sent = {"Cookie": self.cookie, "X-CSRF-Token": self.csrf, "Content-Type": "application/json"}
        return exchange(self._port, "POST", path, sent | headers, json.dumps(order).encode())

    def events(self, since: int) -> "Events":
        return Events(self._port, self.cookie, since)


class Events:
    """A stream of server-sent events."""

    def __init__(self, port: int, cookie: str, since: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._connection.request("GET", f"/api/events?since={since}", headers={"Cookie": cookie})
        self.answer = self._connection.getresponse()

    def next(self) -> dict[str, Any] | str:
        """The next change, or the name of an event that is none."""
        name = ""
        while line := self.answer.readline().decode().rstrip("\n"):
            if line.startswith(":"):
                assert self.answer.readline() == b"\n"
            elif line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                assert self.answer.readline() == b"\n"
                return json.loads(line.removeprefix("data: "))
            elif line == "data:":
                return name
        return "over"

    def close(self) -> None:
        if self._connection.sock is not None:
            # Whoever reads in another thread is woken.
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._connection.close()


class Console:
    """`more` are tables and keys of its settings."""

    def __init__(self, folder: Path, steering: str, **more: Any) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "console.log"
        self._config = folder / "console.toml"
        self._process: subprocess.Popen[bytes] | None = None
        self.env: dict[str, str] = {}
        self.trusted: ssl.SSLContext | None = None
        """With [tls]: how its certificate is verified."""
        folder.mkdir(parents=True, exist_ok=True)
        self.settings: dict[str, Any] = {
            "state_dir": str(folder / "state"),
            "steering": steering,
            "listen": f"127.0.0.1:{self.port}",
            "account": accounts(),
        } | more

    def start(self) -> "Console":
        tables = {name: value for name, value in self.settings.items() if isinstance(value, dict) or name == "account"}
        keys = {name: value for name, value in self.settings.items() if name not in tables}
        head = "".join(f"{name} = {json.dumps(value)}\n" for name, value in keys.items())
        self._config.write_text(head + as_toml(tables))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "admin", "serve", "--config", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.env},
            )
        wait_until(self._is_up, "the console answers")
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        return self.ask("GET", "/healthz", {}).status == 200

    def ask(self, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> Got:
        """As somebody who has no session."""
        if self.trusted is None:
            return exchange(self.port, method, path, headers, body)
        connection = HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE, context=self.trusted)
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return Got(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def stop(self) -> None:
        """End it gently, and insist on a clean end and a clean log."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(PATIENCE)
        self._process = None
        text = self.log.read_text()
        assert code == 0, text
        assert "Traceback" not in text, text

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def try_log_in(self, name: str, password: str = PASSWORD, **headers: str) -> Got:
        body = urlencode({"name": name, "password": password}).encode()
        sent = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        return self.ask("POST", "/login", sent, body)

    def person(self, name: str) -> Person:
        got = self.try_log_in(name)
        assert got.status == 200, got.body
        return Person(self.port, got.headers["Set-Cookie"].partition(";")[0])
