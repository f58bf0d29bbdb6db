"""The fill agent of an appliance, as its own process; and the planner's machine, as an operator uses it."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.doubles.appliance import PATIENCE, as_toml, exchange, free_port, wait_until
from tests.doubles.s3 import S3Server
from wire.orders import public_key_text

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KID = "test"
_ENDS = 90.0


class Agent:
    """`oca-fill agent` beside an appliance. `more` are settings."""

    def __init__(self, folder: Path, appliance: str, oca: str, bucket: str, endpoint_url: str, **more: Any) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = folder / "agent.log"
        self.config = folder / "agent.toml"
        self.process: subprocess.Popen[bytes] | None = None
        self.env: dict[str, str] = {}
        """Of its environment, what is not about S3."""
        folder.mkdir(parents=True, exist_ok=True)
        tables = {
            "control": {"bucket": bucket, "endpoint_url": endpoint_url},
            "order_keys": {KID: public_key_text(KEY.public_key())},
        }
        plain = {
            "appliance": appliance,
            "state_dir": str(folder / "agent"),
            "timezone": "Etc/UTC",
            "oca": oca,
            "listen": f"127.0.0.1:{self.port}",
            "pause": "200 ms",
            "poll": "1 s",
        }
        tables |= {name: {**tables.get(name, {}), **table} for name, table in more.items() if isinstance(table, dict)}
        plain |= {name: value for name, value in more.items() if not isinstance(value, dict)}
        words = "".join(f"{name} = {json.dumps(value)}\n" for name, value in plain.items())
        self.config.write_text(words + as_toml(tables))

    def start(self, *words: str) -> "Agent":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fill", "agent", "--config", str(self.config), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=S3Server.environment() | self.env,
            )
        return self

    def once(self) -> int:
        """Work on the order now; the exit code."""
        self.start("--once")
        return self.ended()

    def ended(self) -> int:
        assert self.process is not None
        try:
            return self.process.wait(_ENDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the agent does not end:\n{self.told()}") from None

    def kill(self) -> None:
        """Without a chance to say anything."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.ended()

    def told(self) -> str:
        """Its log."""
        return self.log.read_text() if self.log.exists() else ""

    def status(self) -> Any:
        return exchange(self.port, "GET", "/v1/status", {}, None).json()

    def metrics(self) -> str:
        return exchange(self.port, "GET", "/metrics", {}, None).body.decode()

    def wait_up(self) -> "Agent":
        def is_up() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.told()
            try:
                return bool(self.status())
            except OSError:
                return False

        wait_until(is_up, "the agent is up")
        return self


class Planner:
    """The machine that plans: settings, key and lake in a folder."""

    def __init__(
        self, folder: Path, control: str, catalogue: str, endpoint_url: str, inventory: Any, **more: Any
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "key.pem").write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (folder / "inventory.json").write_text(json.dumps(inventory))
        tables = {
            "control": {"bucket": control, "endpoint_url": endpoint_url},
            "catalogue": {"bucket": catalogue, "endpoint_url": endpoint_url},
            "fleet": {"file": str(folder / "inventory.json")},
            "signing": {"key": str(folder / "key.pem"), "kid": KID},
            **more,
        }
        (folder / "fill.toml").write_text(
            f'state_dir = "{folder}"\nwishes = "{folder}/wishes.toml"\n' + as_toml(tables)
        )
        (folder / "wishes.toml").write_text("")

    def types(self, command: str, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "fill", command, "--config", str(self.folder / "fill.toml"), *words],
            capture_output=True,
            text=True,
            timeout=_ENDS,
            check=False,
            env={**S3Server.environment(), "COLUMNS": "200"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout
