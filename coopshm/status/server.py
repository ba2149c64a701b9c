"""An HTTP server for the status page, made of the standard library's. It listens on loopback unless told otherwise.

Who reads the page reads the keys of the caches, which are for their owner: so it is answered to processes of this
server's user and of root only. Whose the other end of a connection is, the kernel says in /proc/net/tcp. /metrics has
no keys, and is for every process of the host, since monitoring systems have users of their own.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import socketserver
import struct
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from ..errors import ConfigError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["Address", "Server", "parse_address"]

#: Connections served at once; more of them wait.
_CROWD = 32
#: Seconds that a client may take to send its request, or to take in the answer.
_PATIENCE = 10.0
#: Where the uid is in a line of /proc/net/tcp, and what its state says while both ends are there.
_UID, _STATE, _ESTABLISHED = 7, 3, "01"


class Address(NamedTuple):
    """Where to listen."""

    host: str  # a numeric address
    port: int  # 0: any free one

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback

    def url(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/"


def parse_address(text: str) -> Address:
    """Return what `PORT`, `HOST:PORT` or `[HOST]:PORT` says; HOST is a numeric address or localhost.

    Raises:
        ConfigError: it says none of these.
    """
    host, colon, port = text.rpartition(":")
    host = host if colon else "127.0.0.1"
    host = "127.0.0.1" if host == "localhost" else host
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""  # an IPv6 address wants brackets
    try:
        number = int(port) if port.isascii() and port.isdigit() else -1
        address = Address(str(ipaddress.ip_address(host)), number)
    except ValueError:
        address = Address("", -1)
    if not (address.host and 0 <= address.port <= 65535):
        raise ConfigError(f"{text!r} is no address to listen on; write PORT, 127.0.0.1:PORT or [::1]:PORT")
    return address


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE

    def get_environ(self) -> WSGIEnvironment:
        environ: WSGIEnvironment = super().get_environ()
        environ["coopshm.peer"] = self.client_address
        environ["coopshm.here"] = self.connection.getsockname()
        return environ

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            pass  # the client has gone, or says nothing

    def log_message(self, format: str, *args: object) -> None:
        pass  # one line a second and browser would hide what matters


class Server(socketserver.ThreadingMixIn, WSGIServer):
    """Serves an application until `shutdown`. A context manager; closes its socket when left."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: Address, application: WSGIApplication, everybody: bool = False) -> None:
        """Listens from here on.

        Args:
            everybody: to answer whoever can reach it.

        Raises:
            ConfigError: it cannot listen there.
        """
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._room = threading.BoundedSemaphore(_CROWD)
        try:
            super().__init__(address, _Handler)
        except (OSError, OverflowError) as exc:
            raise ConfigError(f"cannot listen on {address.url()}: {exc}") from exc
        self.address = Address(address.host, self.server_port)
        self.set_app(application if everybody else _ours(application))

    def server_bind(self) -> None:
        # Not HTTPServer's: it asks the name service who this host is.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]
        self.setup_environ()

    def process_request(self, request: object, client_address: object) -> None:
        self._room.acquire()
        super().process_request(request, client_address)  # type: ignore[arg-type]

    def process_request_thread(self, request: object, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]
        finally:
            self._room.release()


def _ours(application: WSGIApplication) -> WSGIApplication:
    """Wrap the application, so that other users of this host get nothing but the metrics."""

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != "/metrics":
            uid = _uid(environ["coopshm.peer"], environ["coopshm.here"])
            if uid not in (0, os.geteuid()):
                body = b"this page is for the user who serves it, and for root; /metrics is for all\n"
                start_response("403 Forbidden", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
                return [body]
        return application(environ, start_response)

    return guarded


def _uid(peer: tuple[object, ...], here: tuple[object, ...]) -> int | None:
    """Return whose the socket is that is bound to `peer` and connected to `here`; None if it is not on this host."""
    family = socket.AF_INET6 if ":" in str(peer[0]) else socket.AF_INET
    wanted = [_hexadecimal(family, end) for end in (peer, here)]
    table = Path("/proc/net/tcp6" if family == socket.AF_INET6 else "/proc/net/tcp")
    for _ in range(3):  # the table is read in parts, between which a line may move
        try:
            lines = table.read_text().splitlines()
        except OSError:
            return None
        for line in lines:
            fields = line.split()
            if fields[1:3] == wanted and fields[_STATE] == _ESTABLISHED:
                return int(fields[_UID])
    return None


def _hexadecimal(family: int, end: tuple[object, ...]) -> str:
    """Return an address as the kernel prints it: words as they lie in memory."""
    data = socket.inet_pton(family, str(end[0]))
    return "".join(f"{word:08X}" for word in struct.unpack(f"={len(data) // 4}I", data)) + f":{int(str(end[1])):04X}"
