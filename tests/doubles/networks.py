"""Machines of their own, as far as the network goes: namespaces, cables between them, and BIRD speaking BGP."""

import ctypes
import functools
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.doubles.appliance import wait_until

_CLONE_NEWNET: Final = 0x40000000
_DEADLINE: Final = 60


class Machine:
    """A network namespace. It goes with the process that holds it, so a test run that dies leaves none behind."""

    def __init__(self, holder: subprocess.Popen[bytes]) -> None:
        self.pid = holder.pid
        self.cables = 0
        """Laid to it so far: cable0, cable1 and so on, as its own interfaces are called."""

    def argv(self, *argv: str) -> list[str]:
        """The command that runs `argv` there."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *argv]

    def run(self, *argv: str) -> str:
        return _run(*self.argv(*argv))

    def forward(self) -> None:
        """Be a router."""
        self.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")

    def route(self, prefix: str, via: str) -> None:
        self.run("ip", "route", "add", prefix, "via", via)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is there meanwhile, and so are the processes it starts."""
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
        try:
            _enter(there)
            try:
                yield
            finally:
                _enter(here)
        finally:
            os.close(here)
            os.close(there)


def _enter(namespace: int) -> None:
    # os.setns came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "a network namespace can't be entered")


@contextmanager
def machine() -> Iterator[Machine]:
    """A new one, with nothing but its loopback."""
    command = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && read -r _"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        if holder.stdout.readline() != b"up\n":
            raise OSError("no network namespace can be made")
        try:
            yield Machine(holder)
        finally:
            holder.communicate()


def connect(one: Machine, other: Machine, addresses: Iterable[str], other_addresses: Iterable[str]) -> None:
    """Lay a cable between the two. Addresses have a prefix length. It goes when one of the machines does."""
    near, far = f"cable{one.cables}", f"cable{other.cables}"
    _run("ip", "link", "add", near, "netns", str(one.pid), "type", "veth", "peer", far, "netns", str(other.pid))
    for end, name, its_addresses in ((one, near, addresses), (other, far, other_addresses)):
        end.cables += 1
        for address in its_addresses:
            # An IPv6 address is not used before it is known to be nobody else's; here it is known.
            end.run("ip", "address", "add", address, "dev", name, *(["nodad"] if ":" in address else []))
        end.run("ip", "link", "set", name, "up")


class Bird:
    """A running BIRD. Made by `bird`."""

    def __init__(self, at: Machine, folder: Path) -> None:
        self._at = at
        self._folder = folder

    def tell(self, *words: str) -> str:
        """Say something to it, as birdc does, and return the answer."""
        return self._at.run("birdc", "-s", str(self._folder / "bird.ctl"), *words)

    def configure(self, text: str) -> None:
        """Run with another configuration from now on."""
        (self._folder / "bird.conf").write_text(text)
        self.tell("configure")


@contextmanager
def bird(at: Machine, folder: Path, configuration: str) -> Iterator[Bird]:
    """BIRD on this machine, with its files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bird.conf").write_text(configuration)
    command = ["bird", "-f", "-c", str(folder / "bird.conf"), "-s", str(folder / "bird.ctl"), "-P", str(folder / "pid")]
    with subprocess.Popen(at.argv(*command), stderr=subprocess.DEVNULL) as process:
        try:
            wait_until((folder / "bird.ctl").exists, "BIRD listens to commands")
            yield Bird(at, folder)
        finally:
            process.terminate()


def announcer(prefixes: Iterable[str], peer: str, own_as: int, peer_as: int, v6_address: str) -> str:
    """Configuration of a speaker that announces these to one peer. `v6_address` is its own, where IPv6 packets go."""
    static = {4: "", 6: ""}
    for prefix in prefixes:
        static[6 if ":" in prefix else 4] += f"  route {prefix} blackhole;\n"
    return f"""
router id 10.255.0.1;
protocol device {{}}
protocol static {{ ipv4;
{static[4]}}}
protocol static {{ ipv6;
{static[6]}}}
protocol bgp peer {{
  local as {own_as};
  neighbor {peer} as {peer_as};
  connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 {{ import none; export all; }};
  ipv6 {{ import none; export all; next hop address {v6_address}; }};
}}
"""


def learner(table: int, peer: str, own_as: int, peer_as: int) -> str:
    """Configuration of a speaker that puts what it learns into a table of the kernel's, and announces nothing."""
    return f"""
router id 10.255.0.2;
protocol device {{}}
protocol kernel {{ ipv4 {{ import none; export all; }}; kernel table {table}; }}
protocol kernel {{ ipv6 {{ import none; export all; }}; kernel table {table}; }}
protocol bgp peer {{
  local as {own_as};
  neighbor {peer} as {peer_as};
  connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 {{ import all; export none; }};
  ipv6 {{ import all; export none; }};
}}
"""


@functools.cache
def lacking() -> str:
    """What this machine lacks for tests marked `networks`; empty if it can do all of it."""
    for program, package in (("bird", "bird2"), ("ip", "iproute2"), ("nsenter", "util-linux")):
        if shutil.which(program) is None:
            return f"{program} (Debian: {package})"
    try:
        with machine() as one, machine() as other:
            connect(one, other, ["10.255.0.1/30"], ["10.255.0.2/30"])
            with one.entered():
                pass
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        return f"network namespaces ({error})"


def _run(*argv: str) -> str:
    return subprocess.run(
        argv, check=True, capture_output=True, text=True, timeout=_DEADLINE, stdin=subprocess.DEVNULL
    ).stdout.strip()
