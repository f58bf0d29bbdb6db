"""The wheel houses of two versions, a rack for a module's boxes, and what stands beside them at the NOC."""

import fcntl
import os
import subprocess
import sys
import threading
from http.client import HTTPConnection, HTTPException, RemoteDisconnected
from pathlib import Path

import pytest
import yaml

from tests.doubles.appliance import wait_until
from tests.doubles.origin import Origin
from tests.doubles.racking import PATIENCE, ROOT, rack

OLD, NEW = "0.1.0", "0.1.1"


@pytest.fixture(scope="session")
def dists(tmp_path_factory):
    """By version, what `make dist` makes. Who works on roles keeps them from run to run: OCA_DISTS=/a/folder."""
    run = tmp_path_factory.getbasetemp()
    # Workers of one run (xdist) have it in common, beside their own folders.
    run = run.parent if "PYTEST_XDIST_WORKER" in os.environ else run
    folder = Path(os.environ.get("OCA_DISTS") or run / "dists")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for version in (OLD, NEW):
            if (folder / version).exists():
                continue
            new = folder / f"{version}.new"
            command = [sys.executable, ROOT / "systemd" / "dist", "--out", new, "--version", version]
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=900)
            assert done.returncode == 0, done.stderr[-3000:]
            new.rename(folder / version)
    return {version: folder / version for version in (OLD, NEW)}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A rack. Its folder is not on tmpfs: layers of file systems lie there."""
    with rack(tmp_path_factory.mktemp("rack")) as made:
        yield made


@pytest.fixture(scope="module")
def origin(shelf):
    """At the NOC, for all boxes."""
    with shelf.noc.entered():
        made = Origin("0.0.0.0", 8000)
        made.__enter__()
    yield made
    made.__exit__(None, None, None)


def write_inventory(path: Path, groups: dict, **variables):
    """`groups`: by name, boxes with their own variables."""
    tree = {
        group: {
            "hosts": {
                box.name: {"ansible_host": box.address, "ansible_user": "root", **own} for box, own in hosts.items()
            }
        }
        for group, hosts in groups.items()
    }
    path.write_text(yaml.safe_dump({"all": {"children": tree, "vars": variables}}))
    return path


class Viewers:
    """At the NOC: they ask a box for films again and again, over connections that are kept, and compare each byte."""

    def __init__(self, shelf, box, films, count=4):
        self._shelf = shelf
        self._box = box
        self._films = films
        self._over = threading.Event()
        self.answers = 0
        self.faults: list[str] = []
        self.retries = 0
        """Requests on a kept connection that was closed meanwhile, which every client sends once more."""
        self._threads = [threading.Thread(target=self._view, args=(number,)) for number in range(count)]

    def _view(self, number):
        with self._shelf.noc.entered():
            connection = None
            paths = sorted(self._films)
            # As often as players ask, or more; plays share the processor with them.
            while not self._over.wait(0.02):
                path = paths[number % len(paths)]
                number += 1
                is_kept = connection is not None
                try:
                    if connection is None:
                        connection = HTTPConnection(self._box.address, timeout=PATIENCE)
                    connection.request("GET", path)
                    answer = connection.getresponse()
                    body = answer.read()
                except (OSError, HTTPException) as error:
                    connection = None
                    if is_kept and isinstance(error, RemoteDisconnected | BrokenPipeError | ConnectionResetError):
                        self.retries += 1
                        number -= 1
                    else:
                        self.faults.append(f"{path}: {error!r}")
                    continue
                self.answers += 1
                if (answer.status, body) != (200, self._films[path]):
                    self.faults.append(f"{path}: {answer.status}, {len(body)} bytes")
                if answer.will_close:
                    connection.close()
                    connection = None
            if connection is not None:
                connection.close()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self.wait_for(20)
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def wait_for(self, more):
        goal = self.answers + more
        wait_until(lambda: self.answers >= goal or self.faults, f"{more} more answers", PATIENCE)


def get(shelf, box, path, port=80, **headers):
    """Status and body of one answer, as somebody outside of the box gets it."""
    with shelf.noc.entered():
        connection = HTTPConnection(box.address, port, timeout=PATIENCE)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()
