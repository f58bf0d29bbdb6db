"""The device part of a control API, on loopback in a thread: it answers as it is told and keeps what it was asked."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class ControlDouble:
    """`devices` is what a listing shows. `answers` come first, one for each request: (status, body)."""

    def __init__(self) -> None:
        self.devices: list[dict[str, Any]] = []
        self.health = 1.0
        self.asked: list[tuple[str, str, Any]] = []
        self.answers: list[tuple[int, Any]] = []
        double = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, order: Any) -> None:
                status, body = double._answer(self.command, self.path, order)
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def device(self, path: str, **fields: Any) -> dict[str, Any]:
        """Add a device to the listing; it is well unless `fields` say otherwise."""
        entry = {
            "id": f"id-{len(self.devices) + 1}",
            "path": path,
            "tier": "nvme",
            "standing": "online",
            "reason": None,
            "since": 0.0,
            "wish": "serve",
            "used_bytes": 0,
            "capacity_bytes": 2**40,
            "errors": {},
            "detail": "",
            **fields,
        }
        self.devices.append(entry)
        return entry

    def _answer(self, method: str, path: str, order: Any) -> tuple[int, Any]:
        self.asked.append((method, path, order))
        if self.answers:
            return self.answers.pop(0)
        if (method, path) == ("GET", "/v1/devices"):
            return 200, {"devices": self.devices, "health": self.health}
        name = order.get("device", order.get("path"))
        entry = next((entry for entry in self.devices if name in {entry["id"], entry["path"]}), None)
        if entry is None:
            return 404, {"error": f"{name} is not a device of this appliance"}
        return 200, entry

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
