"""Debian's nginx as a static server, as a cache, and as the origin, tuned as one who wants it fast would.

`tcp_nopush` joins head and file in one packet. With `sendfile` that is the textbook's advice, but on loopback it cost
nginx twice the CPU from 256 KiB up (measured, Linux 6.18 with BBR: 0.10 against 0.05 ms), so the cache is measured
both ways and the cheaper one counts.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tests.bench.machine import command
from tests.bench.processes import Process, accepts, ending, free_port, wait_until

_COMMON = """
daemon off;
{user}
worker_processes {workers};
worker_rlimit_nofile 65536;
error_log {folder}/error.log warn;
pid {folder}/nginx.pid;
events {{ worker_connections 16384; }}
http {{
    types {{ video/iso.segment m4s; }}
    default_type application/octet-stream;
    server_tokens off;
    access_log off;
    sendfile on;
    tcp_nopush {nopush};
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    open_file_cache max=16384 inactive=1h;
    open_file_cache_valid 1h;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {more}
}}
"""

_STATIC = """
    server {{
        listen {address}:{port} backlog=4096;
        root {root};
        add_header Cache-Control "public, max-age=31536000, immutable";
    }}
"""

_STATIC_TLS = """
    ssl_certificate {pair};
    ssl_certificate_key {pair};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:tls:16m;
    ssl_buffer_size {buffer};
    server {{
        listen 127.0.0.1:{port} ssl backlog=4096;
        root {root};
        add_header Cache-Control "public, max-age=31536000, immutable";
    }}
"""

# No CORS lines and no Age: what nginx leaves out here is to its advantage.
_CACHE = """
    proxy_cache_path {folder}/cache levels=1:2 keys_zone=films:64m max_size=64g inactive=30d use_temp_path=off;
    upstream origin {{ server 127.0.0.1:{origin}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_cache films;
            proxy_cache_key $uri;
            proxy_cache_valid 200 30d;
            proxy_cache_lock on;
            add_header X-Cache-Status $upstream_cache_status;
        }}
    }}
"""


class Nginx:
    """One running nginx: a master and its workers."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port

    def processes(self) -> list[int]:
        """All that stay: the cache loader looks once, a minute after the start, and ends."""
        return [pid for pid in self.process.family() if "cache loader" not in command(pid)]


@contextlib.contextmanager
def static(
    name: str, folder: Path, root: Path, *, workers: int, on: frozenset[int], address: str = "127.0.0.1"
) -> Iterator[Nginx]:
    port = free_port()
    more = _STATIC.format(address=address, port=port, root=root)
    with _running(name, folder, more, port, workers=workers, on=on, nopush=False) as nginx:
        yield nginx


@contextlib.contextmanager
def static_tls(name: str, folder: Path, root: Path, *, pair: Path, buffer: str, on: frozenset[int]) -> Iterator[Nginx]:
    """`pair`: certificate and key in one file; `buffer`: ssl_buffer_size."""
    port = free_port()
    more = _STATIC_TLS.format(port=port, root=root, pair=pair, buffer=buffer)
    with _running(name, folder, more, port, workers=1, on=on, nopush=False) as nginx:
        yield nginx


@contextlib.contextmanager
def cache(name: str, folder: Path, origin: int, *, workers: int, on: frozenset[int], nopush: bool) -> Iterator[Nginx]:
    port = free_port()
    more = _CACHE.format(port=port, origin=origin, folder=folder)
    with _running(name, folder, more, port, workers=workers, on=on, nopush=nopush) as nginx:
        yield nginx


@contextlib.contextmanager
def _running(
    name: str, folder: Path, more: str, port: int, *, workers: int, on: frozenset[int], nopush: bool
) -> Iterator[Nginx]:
    folder.mkdir(parents=True)
    conf = folder / "nginx.conf"
    # Root's workers would become www-data, who can't read a private temporary folder.
    user = "user root;" if os.geteuid() == 0 else ""
    told = "on" if nopush else "off"
    conf.write_text(_COMMON.format(folder=folder, workers=workers, user=user, nopush=told, more=more))
    argv = ["nginx", "-e", str(folder / "error.log"), "-p", str(folder), "-c", str(conf)]
    with ending(Process(name, argv, on=on, log=folder / "output.log")) as process:
        wait_until("it accepts connections", lambda: accepts(port), process)
        yield Nginx(process, port)
