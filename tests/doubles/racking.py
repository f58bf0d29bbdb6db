"""A Debian machine as an ISP racks it: systemd as PID 1 in a tree of its own, on a network of its own, reached by ssh.

The tree is made once by debootstrap and kept; each box is a layer above it. Packages that roles install lie beside it
as a repository of files, so that apt works without internet. Nothing here talks to anybody outside.
"""

import contextlib
import fcntl
import functools
import hashlib
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.doubles.networks import Machine, connect, machine

SUITE: Final = "bookworm"
MIRROR: Final = "http://deb.debian.org/debian"
BASE: Final = (
    "systemd", "systemd-sysv", "dbus", "ca-certificates", "iproute2", "openssh-server", "python3", "python3-apt",
    "procps",
)  # fmt: skip
"""What whoever installs Debian has."""
OFFERED: Final = (
    "python3-venv", "build-essential", "python3-dev", "nftables", "bird2", "xfsprogs", "chrony", "prometheus",
    "prometheus-alertmanager", "prometheus-node-exporter", "curl", "kmod", "util-linux-extra",
)  # fmt: skip
"""What roles may install."""
ROOT: Final = Path(__file__).parents[2]
_OWN_CARDS: Final = " && ".join(
    ["mkdir /run/sysfs", "mount -t sysfs sysfs /run/sysfs"]
    + [f"mount --bind /run/sysfs/{folder} /sys/{folder}" for folder in ("class/net", "devices/virtual/net")]
)
"""systemd-nspawn shows the cards of the network that it was started in: here the box sees its own."""
PATIENCE: Final = 120.0
_BUILD_PATIENCE: Final = 1500.0
_PLAY_PATIENCE: Final = 600.0


@functools.cache
def lacking() -> str:
    """What this machine lacks for such boxes; empty if it has all."""
    if os.geteuid() != 0:
        return "root"
    for program in ("debootstrap", "systemd-nspawn", "ssh", "dpkg-scanpackages", "unshare"):
        if shutil.which(program) is None:
            return program
    return ""


@dataclass
class Played:
    """What came of a playbook."""

    returncode: int
    stats: dict[str, dict[str, int]]
    results: list[tuple[str, str, dict[str, Any]]]
    """Host, task, what its module said."""
    text: str

    def changed(self) -> list[str]:
        """Tasks that changed something."""
        return [f"{host}: {task}" for host, task, result in self.results if result.get("changed")]

    def failures(self) -> list[str]:
        return [
            f"{host}: {task}: {result.get('msg', '')} {result.get('stderr', '')} {result.get('exception', '')}"[:4000]
            for host, task, result in self.results
            if result.get("failed") or result.get("unreachable")
        ]

    def assert_good(self) -> "Played":
        assert self.returncode == 0, "\n".join(self.failures()) or self.text[-4000:]
        return self


class Box:
    """One machine that is up. Made by `Rack.box`."""

    def __init__(self, name: str, rack: "Rack", at: Machine, root: Path, address: str) -> None:
        self.name = name
        self.address = address
        self.at = at
        """Its network."""
        self.root = root
        """Its file system, as seen from here."""
        self._rack = rack

    def ssh(self, command: str, *, check: bool = True, patience: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self._rack.argv("ssh", *self._rack.ssh_options, f"root@{self.address}", command),
            check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience,
        )  # fmt: skip
        assert not check or done.returncode == 0, (
            f"{self.name}: {command}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def run(self, command: str) -> str:
        """What a command there says; it must succeed."""
        return self.ssh(command).stdout

    def wait_for(self, command: str) -> str:
        """Until a command there succeeds."""
        deadline = time.monotonic() + PATIENCE
        while (done := self.ssh(command, check=False)).returncode:
            assert time.monotonic() < deadline, f"{self.name}: waited in vain for {command}\n{done.stdout}{done.stderr}"
            time.sleep(0.2)
        return done.stdout


class Rack:
    """Boxes, and the machine from which Ansible reaches them: `noc`. Made by `rack`."""

    def __init__(self, folder: Path, noc: Machine) -> None:
        self.folder = folder
        self.noc = noc
        noc.forward()
        self.boxes: dict[str, Box] = {}
        self._made = 0
        self._key = folder / "id"
        _done("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._key))
        self.ssh_options = [
            "-i", str(self._key), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=5", "-o", "BatchMode=yes",
            "-o", "ControlMaster=auto", "-o", "ControlPersist=20s", "-o", f"ControlPath={folder}/cm-%C",
        ]  # fmt: skip

    def argv(self, *argv: str) -> list[str]:
        """The command that runs `argv` at the NOC."""
        return self.noc.argv(*argv)

    @contextmanager
    def box(self, name: str, *more: str) -> Iterator[Box]:
        """A fresh one, up and answering. `more`: words for systemd-nspawn."""
        self._made += 1
        number = self._made
        address = f"10.77.{number}.2"
        layer = self.folder / f"{number}-{name}"
        for part in ("upper", "work", "root"):
            (layer / part).mkdir(parents=True)
        root = layer / "root"
        with machine() as at, contextlib.ExitStack() as stack:
            connect(self.noc, at, [f"10.77.{number}.1/24"], [f"{address}/24"])
            at.route("default", f"10.77.{number}.1")
            below = base()
            options = f"lowerdir={below},upperdir={layer / 'upper'},workdir={layer / 'work'}"
            _done("mount", "-t", "overlay", "overlay", "-o", options, str(root))
            stack.callback(_done, "umount", "--lazy", str(root))
            (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
            (root / "root/.ssh/authorized_keys").write_bytes(self._key.with_suffix(".pub").read_bytes())
            (root / "etc/hostname").write_text(f"{name}\n")
            stack.enter_context(_booted(name, at, root, layer / "console", more))
            box = self.boxes[name] = Box(name, self, at, root, address)
            try:
                box.wait_for("systemctl is-system-running | grep -qE 'running|degraded'")
                box.run(_OWN_CARDS)
                yield box
            except BaseException:
                with contextlib.suppress(Exception):
                    print(box.ssh("journalctl --no-pager -n 80 -p notice", check=False).stdout)
                raise
            finally:
                del self.boxes[name]

    def play(self, playbook: str, *words: str, inventory: Path, **variables: Any) -> Played:
        """Run a playbook of ansible/, or one at an absolute path."""
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible" / "ansible.cfg"),
            "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "ansible"),
            "ANSIBLE_CALLBACKS_ENABLED": "told",
            "TOLD": str(self.folder / "told"),
            "ANSIBLE_PRIVATE_KEY_FILE": str(self._key),
            "ANSIBLE_HOST_KEY_CHECKING": "False",
            "ANSIBLE_SSH_ARGS": " ".join(self.ssh_options[2:]),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
        }
        (self.folder / "told").write_text("")
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            str(inventory),
            str(ROOT / "ansible" / playbook),
            *words,
        ]
        if variables:
            command += ["--extra-vars", json.dumps(variables)]
        done = subprocess.run(
            self.argv(*command), check=False, cwd=ROOT / "ansible", env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=_PLAY_PATIENCE,
        )  # fmt: skip
        lines = [json.loads(line) for line in (self.folder / "told").read_text().splitlines()]
        stats = next((line["stats"] for line in lines if "stats" in line), {})
        results = [(line["host"], line["task"], line["result"]) for line in lines if "task" in line]
        return Played(done.returncode, stats, results, done.stdout)


@contextmanager
def rack(folder: Path) -> Iterator[Rack]:
    with machine() as noc:
        yield Rack(folder, noc)


@contextmanager
def _booted(name: str, at: Machine, root: Path, console: Path, more: tuple[str, ...]) -> Iterator[None]:
    command = [
        "systemd-nspawn", "--quiet", "-D", str(root), "--boot", "--register=no", "--keep-unit", f"--machine={name}",
        f"--network-namespace-path=/proc/{at.pid}/ns/net", "--console=pipe", "--resolv-conf=off", "--timezone=off",
        "--capability=CAP_NET_ADMIN,CAP_NET_RAW",
        *more,
    ]  # fmt: skip
    with console.open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}, start_new_session=True,
        )  # fmt: skip
        try:
            yield
        except BaseException:
            print(f"--- console of {name} ---\n{console.read_text(errors='replace')[-4000:]}")
            raise
        finally:
            # It has its init shut down, and ends after it.
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


# --- The tree that all boxes stand on ---------------------------------------------------------------------------------


def base() -> Path:
    """Made once for each list of packages, which takes some minutes."""
    told = "\n".join((SUITE, MIRROR, *BASE, "", *OFFERED, inspect.getsource(_make_base)))
    home = Path(os.environ.get("OCA_RACKING_CACHE", "/var/tmp/oca-racking"))
    folder = home / hashlib.sha256(told.encode()).hexdigest()[:16]
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            for old in home.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            new = folder.with_suffix(".new")
            _make_base(new)
            new.rename(folder)
    return folder


def _make_base(root: Path) -> None:
    _built("debootstrap", "--variant=minbase", f"--include={','.join(BASE)}", SUITE, str(root), MIRROR)
    packages = root / "srv/packages"
    packages.mkdir()
    # Downloaded with the tree's own apt, so that each comes with what it needs; installed by nobody yet.
    _built("chroot", str(root), "apt-get", "update", "-qq")
    (packages / "partial").mkdir()
    how = "--download-only", "--no-install-recommends", "-y", "-qq", "-oDir::Cache::archives=/srv/packages"
    _built("chroot", str(root), "apt-get", "install", *how, *OFFERED)
    shutil.rmtree(packages / "partial")
    (packages / "lock").unlink(missing_ok=True)
    listed = subprocess.run(
        ["dpkg-scanpackages", "-m", "."], check=True, cwd=packages, capture_output=True, timeout=_BUILD_PATIENCE
    )
    (packages / "Packages").write_bytes(listed.stdout)
    (root / "etc/apt/sources.list").write_text("deb [trusted=yes] file:/srv/packages ./\n")
    shutil.rmtree(root / "var/lib/apt/lists")
    (root / "var/lib/apt/lists/partial").mkdir(parents=True)
    _built("chroot", str(root), "apt-get", "update", "-qq")
    (root / "etc/machine-id").write_text("")
    # What waits for hardware or a network that configures itself.
    for unit in (
        "systemd-networkd-wait-online.service",
        "systemd-resolved.service",
        "getty@tty1.service",
        "console-getty.service",
    ):
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    (root / "etc/ssh/sshd_config.d/tests.conf").write_text("UseDNS no\nPermitRootLogin prohibit-password\n")


def _built(*command: str) -> None:
    _done(*command, patience=_BUILD_PATIENCE)


def _done(*command: str, patience: float = PATIENCE) -> str:
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout
