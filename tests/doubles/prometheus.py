"""Prometheus and Alertmanager as an operator runs them, with the repository's files, but in seconds, not minutes."""

import contextlib
import json
import shutil
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.doubles.appliance import free_port, wait_until

FILES = Path(__file__).parents[2] / "admin" / "prometheus"
NEEDED = ("prometheus", "prometheus-alertmanager")


def lacking() -> list[str]:
    """Programs that are not here."""
    return [name for name in NEEDED if shutil.which(name) is None]


class Told(ThreadingHTTPServer):
    """Whoever is called by Alertmanager: keeps each alert with where it came in."""

    def __init__(self) -> None:
        self.alerts: list[tuple[str, dict[str, Any]]] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def of(self, name: str, status: str = "firing") -> list[tuple[str, dict[str, Any]]]:
        """Alerts of this name, with where they went."""
        return [
            (place, alert)
            for place, alert in self.alerts
            if alert["labels"]["alertname"] == name and alert["status"] == status
        ]

    def end(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert isinstance(self.server, Told)
        self.server.alerts += [(self.path, alert) for alert in body["alerts"]]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Prometheus:
    """Scrapes and decides each second; no alert waits."""

    def __init__(self, folder: Path, steering: int, told: Told) -> None:
        """`steering`: the port of its admin listener, which is scraped and says what else is."""
        self.port, self.alertmanager_port = free_port(), free_port()
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._write(steering, told.server_port)

    def _write(self, steering: int, told: int) -> None:
        main = (FILES / "prometheus.yml").read_text().replace("STEERING:9146", f"127.0.0.1:{steering}")
        settings = yaml.safe_load(main.replace("127.0.0.1:9093", f"127.0.0.1:{self.alertmanager_port}"))
        settings["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        for job in settings["scrape_configs"]:
            for discovery in job.get("http_sd_configs", ()):
                discovery["refresh_interval"] = "1s"
        (self._folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
        for name in settings["rule_files"]:
            rules = yaml.safe_load((FILES / name).read_text())
            for group in rules["groups"]:
                group["interval"] = "1s"
                for rule in group["rules"]:
                    rule.pop("for", None)
            (self._folder / name).write_text(yaml.safe_dump(rules))
        text = (FILES / "alertmanager.yml").read_text().replace("127.0.0.1:9094", f"127.0.0.1:{told}")
        routing = yaml.safe_load(text)
        for route in (routing["route"], *routing["route"]["routes"]):
            route |= {"group_wait": "1s", "group_interval": "1s"}
        (self._folder / "alertmanager.yml").write_text(yaml.safe_dump(routing))

    def start(self) -> None:
        self._run(
            "prometheus-alertmanager",
            f"--config.file={self._folder}/alertmanager.yml",
            f"--storage.path={self._folder}/alerts",
            f"--web.listen-address=127.0.0.1:{self.alertmanager_port}",
            "--cluster.listen-address=",
        )
        self._run(
            "prometheus",
            f"--config.file={self._folder}/prometheus.yml",
            f"--storage.tsdb.path={self._folder}/series",
            f"--web.listen-address=127.0.0.1:{self.port}",
        )
        wait_until(lambda: self._got("/-/ready") is not None, "Prometheus is ready")

    def _run(self, *command: str) -> None:
        with (self._folder / f"{command[0]}.log").open("ab") as log:
            self._processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def _got(self, path: str) -> bytes | None:
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10).read()
        return None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What an instant query says: samples with `metric` and `value`."""
        body = self._got(f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        assert body is not None, expression
        return json.loads(body)["data"]["result"]

    def ask(self, expression: str) -> bool:
        """Whether it is a query that Prometheus understands."""
        return self._got(f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}") is not None

    def firing(self) -> set[tuple[str, str]]:
        """By Alertmanager, what somebody is told of: alert, and which appliance, site or instance. Not what follows."""
        url = f"http://127.0.0.1:{self.alertmanager_port}/api/v2/alerts?active=true&silenced=false&inhibited=false"
        told = json.loads(urllib.request.urlopen(url, timeout=10).read())
        places = ("appliance", "site", "listener", "database")
        return {
            (one["labels"]["alertname"], next((one["labels"][name] for name in places if name in one["labels"]), ""))
            for one in told
        }

    def wait_judged(self) -> None:
        """Until all rules were evaluated three times more, of samples that came after this was asked for."""
        counts = "prometheus_rule_group_iterations_total"

        def evaluated() -> dict[str, float]:
            body = self._got("/metrics")
            assert body is not None
            lines = [line.rpartition(" ") for line in body.decode().splitlines() if line.startswith(counts + "{")]
            return {name: float(value) for name, _, value in lines}

        before = evaluated()
        wait_until(
            lambda: all(count >= before.get(name, 0) + 3 for name, count in evaluated().items()), "rules are evaluated"
        )

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()


@contextlib.contextmanager
def running(folder: Path, steering: int) -> Iterator[tuple[Prometheus, Told]]:
    told = Told()
    made = Prometheus(folder, steering, told)
    try:
        made.start()
        yield made, told
    finally:
        made.stop()
        told.end()
