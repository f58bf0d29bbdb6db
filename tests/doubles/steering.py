"""A real steering replica: `python -m steering serve` in a folder of its own, and appliances that only speak."""

import contextlib
import hashlib
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.doubles.appliance import PATIENCE, Got, Metrics, as_toml, exchange, free_port, wait_until

SECRET = "a-token-that-all-speaking-appliances-share"
_BOOTS = itertools.count(1)
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()


def small_fleet() -> dict[str, list[dict[str, Any]]]:
    """An ISP in Lisbon with two appliances, and an exchange in Madrid that is open to everyone."""
    return {
        "operator": [{"id": "isp", "asns": [64500], "allowed": ["10.0.0.0/8", "127.0.0.0/8"]}, {"id": "ix"}],
        "site": [
            site("lis", "isp", 38.7, -9.1, "PT", prefixes=["10.0.0.0/8"]),
            site("mad", "ix", 40.4, -3.7, "ES", serves="everyone"),
        ],
        "appliance": [appliance("lis-1", "lis"), appliance("lis-2", "lis"), appliance("mad-1", "mad")],
    }


def site(name: str, operator: str, latitude: float, longitude: float, country: str, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "operator": operator,
        "latitude": latitude,
        "longitude": longitude,
        "country": country,
        **more,
    }


def appliance(name: str, of_site: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "site": of_site, "url": f"http://{name}.edge.example", "token_sha256": DIGEST, **more}


@dataclass
class Speaker:
    """An appliance as steering hears it. `said` is what its next heartbeat says besides the usual."""

    replica: "Replica"
    name: str
    token: str = SECRET
    boot: str = field(default_factory=lambda: f"boot-{next(_BOOTS)}")
    said: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)

    def beat(self, **said: Any) -> Got:
        self.said.update(said)
        message = {
            "appliance": self.name,
            "boot": self.boot,
            "sequence": next(self._numbers),
            "sent_at": time.time(),
            "ready": True,
            "link_bps": 10_000_000_000,
            "egress_bps": 1_000_000_000,
            "connections": 10,
            "hit_ratio": 0.9,
            **self.said,
        }
        return self.tell("/v1/heartbeat", message)

    def tell(self, path: str, message: Any, **headers: str) -> Got:
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        named = {"X-Appliance": self.name, "Authorization": f"Bearer {self.token}", **headers}
        return exchange(self.replica.fleet_port, "POST", path, named, body)


class Replica:
    """`overrides` are tables of the settings file, as for `Appliance`."""

    def __init__(self, folder: Path, fleet: dict[str, list[dict[str, Any]]] | None = None) -> None:
        self.folder = folder
        self.public_port, self.fleet_port, self.admin_port = free_port(), free_port(), free_port()
        self.config = folder / "steering.toml"
        self.inventory = folder / "fleet.toml"
        self.log = folder / "log"
        self.decisions = folder / "decisions.jsonl"
        self.process: subprocess.Popen[bytes] | None = None
        self.fleet = fleet if fleet is not None else small_fleet()
        folder.mkdir(parents=True, exist_ok=True)
        self.write_inventory()

    # --- Settings and life ---

    def write_inventory(self) -> None:
        self.inventory.write_text(as_toml(self.fleet))

    def write_settings(self, **overrides: Any) -> None:
        tables: dict[str, Any] = {
            "steering": {"id": "test", "state_dir": str(self.folder / "state")},
            "listen": {
                "base_url": f"http://127.0.0.1:{self.public_port}",
                "public": f"127.0.0.1:{self.public_port}",
                "fleet": f"127.0.0.1:{self.fleet_port}",
                "admin": f"127.0.0.1:{self.admin_port}",
            },
            "content": {"origin": "http://origin.example"},
            "limits": {"trusted_proxies": ["127.0.0.1/32"], "rate": 100_000, "burst": 100_000, "lag": "10 s"},
            "decisions": {"path": str(self.decisions)},
            # Most tests are of appliances that have been turned up long ago.
            "turn_up": {"required": False},
        }
        for name, given in overrides.items():
            tables[name] = given if isinstance(given, list) else {**tables.get(name, {}), **given}
        self.config.write_text(f"inventory = {json.dumps(str(self.inventory))}\n" + as_toml(tables))

    def start(self, **overrides: Any) -> "Replica":
        if overrides or not self.config.exists():
            self.write_settings(**overrides)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "steering", "serve", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._is_up, "steering answers")
        return self

    def _is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log.read_text()}"
        return self.admin("GET", "/healthz").status == 200

    def stop(self) -> None:
        """End it gently, and insist on a clean end and a clean log."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        self.process = None
        text = self.log.read_text()
        assert code == 0, text
        assert "Traceback" not in text, text

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE)
            self.process = None

    # --- Talking to it ---

    def speaker(self, name: str, **more: Any) -> Speaker:
        return Speaker(self, name, **more)

    def speakers(self) -> dict[str, Speaker]:
        return {one["id"]: self.speaker(one["id"]) for one in self.fleet["appliance"]}

    def serving(self, *names: str) -> dict[str, Speaker]:
        """All appliances, or those named, speak until they are trusted."""
        speakers = {name: one for name, one in self.speakers().items() if not names or name in names}

        def all_serve() -> bool:
            for one in speakers.values():
                assert one.beat().status == 200
            return all(self.standing(name) == "serving" for name in speakers)

        wait_until(all_serve, "all appliances serve")
        return speakers

    def public(self, path: str, **headers: str) -> Got:
        return exchange(self.public_port, "GET", path, {k.replace("_", "-"): v for k, v in headers.items()}, None)

    def admin(self, method: str, path: str, body: Any = None) -> Got:
        return exchange(self.admin_port, method, path, {}, None if body is None else json.dumps(body).encode())

    def steer(self, path: str, client: str, more: str = "") -> list[str]:
        """The ids of the answer, the best first."""
        got = self.public(f"/v1/steer?path={path}&client={client}{more}")
        assert got.status == 200, got.body
        return [option["id"] for option in got.json()["options"]]

    def steering_manifest(self, path: str, client: str, more: str = "") -> Any:
        got = self.public(f"/v1/content-steering?path={path}&client={client}{more}")
        assert got.status == 200, got.body
        return got.json()

    def explain(self, path: str, client: str, more: str = "") -> Any:
        got = self.admin("GET", f"/v1/explain?path={path}&client={client}{more}")
        assert got.status == 200, got.body
        return got.json()

    def change(self, *changes: dict[str, Any], who: str = "ana", why: str = "a test", force: bool = True) -> Got:
        """Forced: on a busy machine, processors make appliances look full."""
        return self.admin("POST", "/v1/changes", {"who": who, "why": why, "force": force, "changes": list(changes)})

    def standing(self, name: str) -> str:
        return self.admin("GET", f"/v1/fleet/{name}").json()["standing"]

    def metric(self, name: str, **labels: str) -> float:
        return Metrics(self.admin("GET", "/metrics").body.decode()).value(name, **labels)


class Chorus:
    """Appliances that speak once a second, each as it `said`, until it ends: a fleet that nobody has to prompt."""

    def __init__(self, replica: Replica) -> None:
        self.speakers = replica.speakers()
        self.quiet: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _go_on(self) -> None:
        while not self._over.wait(1):
            for name, one in self.speakers.items():
                if name not in self.quiet:
                    with contextlib.suppress(OSError):
                        one.beat()
