"""`python -m admin.demo.origin`: an S3 store in memory, on loopback, for the demo. Any credentials will do.

Prints its port on the first line of standard output and runs until it is ended.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any, Final

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

_HOST: Final = "127.0.0.1"


class _Handler(WSGIRequestHandler):
    # Appliances keep their connections to an origin open, as they would to a real one.
    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing: each fetch is on the demo's page already."""


def application() -> Application:
    """The store as a WSGI application."""
    store: Application = DomainDispatcherApplication(create_backend_app)
    writing = Lock()

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401 WSGI's own callable
        if environ["REQUEST_METHOD"] != "PUT":
            return store(environ, start_response)
        # moto checks If-Match and writes in two steps; a real store does it in one.
        with writing:
            return store(environ, start_response)

    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description="An S3 store in memory, on loopback.")
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one")
    server = make_server(_HOST, parser.parse_args().port, application(), threaded=True, request_handler=_Handler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main()
