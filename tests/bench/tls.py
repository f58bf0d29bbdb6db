"""What TLS costs beside nginx: CPU per response and per GiB of warm objects, and CPU per handshake.

Both show the same P-256 certificate and speak TLS 1.3; nginx sends static files with its usual buffer of 16 KiB and
with 64 KiB, and the cheaper counts. What they agreed on is looked at, so that nobody wins by a weaker cipher.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.bench import nginx
from tests.bench.appliance import Appliance, appliance
from tests.bench.films import Films, Shape
from tests.bench.load import Load
from tests.bench.machine import BenchError, Cores, cpu_seconds
from tests.bench.processes import free_port, pinned_here
from tests.bench.report import median, reached, spread, table

_NGINX = {"nginx, 16 KiB": "16k", "nginx, 64 KiB": "64k"}
_OURS = "appliance"
_FILES = 32
_WARM_UP = 1
_SHAKES = 400
GIB = 2**30


@dataclass
class Server:
    name: str
    running: nginx.Nginx | Appliance
    port: int
    costs: dict[str, list[float]] = field(default_factory=dict)
    """CPU-milliseconds of a response, by shape; and of a handshake."""


@dataclass(frozen=True)
class Plan:
    rounds: int
    seconds: int
    connections: int
    headers: tuple[str, ...]
    shapes: tuple[Shape, ...]


def measure(folder: Path, cores: Cores, plan: Plan) -> dict:
    """Raises `BenchError`."""
    root = folder / "source"
    pair = _certificate(folder)
    load = Load(folder / "load", on=cores.load, connections=plan.connections, headers=plan.headers)
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(nginx.static("origin", folder / "origin", root, workers=1, on=cores.load)).port
        servers = []
        for name, buffer in _NGINX.items():
            running = stack.enter_context(
                nginx.static_tls(name, folder / name.replace(" ", ""), root, pair=pair, buffer=buffer, on=cores.server)
            )
            servers.append(Server(name, running, running.port))
        port = free_port()
        more = f'[[certificate]]\ncert = "{pair}"\nkey = "{pair}"\n'
        ours = stack.enter_context(
            appliance(_OURS, folder / "oca", origin, on=cores.server, more=more, listen=f'https = "127.0.0.1:{port}"')
        )
        servers.append(Server(_OURS, ours, port))
        ciphers = {server.name: _agreed(server.port) for server in servers}
        if len(set(ciphers.values())) != 1:
            raise BenchError(f"they do not speak alike: {ciphers}")
        films = {shape.size: Films(root, shape.size, _FILES) for shape in plan.shapes}
        for some in films.values():
            ours.fill(some)
        for shape in plan.shapes:
            for server in servers:
                load.run(server.port, films[shape.size], shape, _WARM_UP, seed=0, scheme="https")
            for number in range(plan.rounds):
                for server in servers:
                    work = partial(load.run, server.port, films[shape.size], shape, plan.seconds, number + 1, "https")
                    server.costs.setdefault(shape.name, []).append(_cost(server, lambda work=work: work().requests))
            print(f"  {shape.name} measured", flush=True)
        path = films[plan.shapes[0].size].paths[0]
        for kind in ("full", "resumed"):
            for _ in range(plan.rounds):
                for server in servers:
                    work = partial(_handshakes, server.port, path, cores, is_resumed=kind == "resumed")
                    server.costs.setdefault(kind, []).append(_cost(server, work))
        return {
            "cipher": ciphers[_OURS],
            "shapes": {shape.name: shape.size for shape in plan.shapes},
            "costs": {server.name: server.costs for server in servers},
        }


def told(results: dict) -> str:
    costs = results["costs"]
    rows = []
    for kind in costs[_OURS]:
        size = results["shapes"].get(kind)
        best = min(_NGINX, key=lambda name: median(costs[name][kind]))
        ratios = [ours / theirs for ours, theirs in zip(costs[_OURS][kind], costs[best][kind], strict=True)]
        for name, rounds in ((name, costs[name][kind]) for name in costs):
            is_ours = name == _OURS
            rows.append(
                (
                    kind if size else f"{kind} handshake, and an answer",
                    name,
                    f"{median(rounds):.4f}",
                    spread(rounds, 4),
                    f"{median(rounds) / 1e3 / size * GIB:.2f}" if size else "",
                    f"{median(ratios):.2f} ({spread(ratios)})" if is_ours else "",
                    f"<= 1.0 {reached(median(ratios), 1.0)}" if is_ours and size else "",
                )
            )
    return f"{results['cipher']}\n" + table(
        ("object", "server", "CPU-ms", "spread", "CPU-s per GiB", "/ best nginx", "target"), rows
    )


def _cost(server: Server, work: Callable[[], int]) -> float:
    """CPU-milliseconds for each of what `work` says that it did."""
    family = server.running.processes()
    before = sum(map(cpu_seconds, family))
    done = work()
    return (sum(map(cpu_seconds, family)) - before) / done * 1e3


def _handshakes(port: int, path: str, cores: Cores, *, is_resumed: bool) -> int:
    context = _trusting()
    session = None
    request = b"GET %b HTTP/1.1\r\nHost: a\r\nRange: bytes=0-0\r\nConnection: close\r\n\r\n" % path.encode()
    with pinned_here(cores.load):
        for number in range(_SHAKES):
            with (
                socket.create_connection(("127.0.0.1", port), 20) as sock,
                context.wrap_socket(sock, session=session) as secured,
            ):
                # Else the request waits for the acknowledgement of the handshake, and the worker's clock ticks on.
                secured.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                secured.sendall(request)
                while secured.recv(65536):
                    pass
                if is_resumed:
                    if number and not secured.session_reused:
                        raise BenchError("a session was not resumed")
                    session = secured.session
    return _SHAKES


def _agreed(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), 20) as sock, _trusting().wrap_socket(sock) as secured:
        return " ".join(map(str, secured.cipher() or ()))


def _trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _certificate(folder: Path) -> Path:
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = builder.add_extension(names, critical=False).sign(key, SHA256())
    pair = folder / "pair.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pair.touch(0o600)
    pair.write_bytes(certificate.public_bytes(Encoding.PEM) + private)
    return pair
