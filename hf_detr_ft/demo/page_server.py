"""Server of the demo's page: a photo comes with each request and goes with it.

It writes no files, and asks nothing of any other server. What a browser of another site could send to a server on this
machine is refused: requests under a foreign host name, and those that need no permission of the server.
"""

import errno
import json
import logging
import re
import socket
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from hf_detr_ft.errors import InputError, RecipeError
from hf_detr_ft.formatting import printable

if TYPE_CHECKING:
    from hf_detr_ft.demo.photo_answers import PhotoAnswers

logger = logging.getLogger(__name__)

LARGEST_PHOTO = 50_000_000
"""Bytes of a file that is taken."""
PHOTO = "application/octet-stream"
"""Type that photos come with: a page of another site may not send it without being asked back."""
FILES = {
    "/": ("demo.html", "text/html; charset=utf-8"),
    "/demo.css": ("demo.css", "text/css; charset=utf-8"),
    "/demo.js": ("demo.js", "text/javascript; charset=utf-8"),
}
"""Files of the page, which lie beside this one, by their paths."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Refused(Exception):
    """A request that is not answered, with a status of HTTP and words for it."""

    def __init__(self, status: HTTPStatus, words: str) -> None:
        super().__init__(words)
        self.status = status


class PageServer(ThreadingHTTPServer):
    """The page and its answers; `serve_forever` serves them.

    Attributes:
        answers: of the models; given once these are loaded, when the address has been taken.
    """

    daemon_threads = True
    answers: "PhotoAnswers"

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), Handler)
        self.host = host

    def server_bind(self) -> None:
        """Takes the address, without asking a name server whose it is, as `HTTPServer` does."""
        TCPServer.server_bind(self)

    @property
    def port(self) -> int:
        """The port that it listens at."""
        return int(self.server_address[1])

    @property
    def address(self) -> str:
        """The page's address."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """True where this machine alone can reach it."""
        return is_loopback(str(self.server_address[0]))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Passes over browsers that went away."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def is_loopback(address: str) -> bool:
    """True of an address, or of a name, that this machine alone can reach."""
    try:
        return ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"


def open_server(host: str, port: int) -> PageServer:
    """Takes an address, where requests wait until the server has models and serves.

    Args:
        host: a name or an address of this machine.
        port: 0 for any that is free.

    Raises:
        RecipeError: the address cannot be had.
    """
    if not 0 <= port < 65536:
        raise RecipeError(f"--port: expected 0 to 65535, found {port}. 0 takes any that is free.")
    try:
        return PageServer(host, port)
    except socket.gaierror as error:
        raise RecipeError(f"--host: '{host}' is no address of this machine: {error.strerror}.") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise RecipeError(
                f"--port: {port} of {host} is taken by another program. Name another one; 0 takes any that is free."
            ) from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise RecipeError(f"--host: '{host}' is no address of this machine.") from error
        raise RecipeError(f"--port: {port} of {host} cannot be had: {error.strerror}. Name another one.") from error


class Handler(BaseHTTPRequestHandler):
    """Answers one browser."""

    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version = "hf_detr_ft"
    sys_version = ""
    timeout = 60

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing: names of photos are nobody else's business."""

    def do_GET(self) -> None:
        """The page's files, and `/models`."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """`/detect` and `/attention`, with a photo."""
        self._answer(self._post)

    def _answer(self, work: Callable[[], tuple[bytes, str]]) -> None:
        """Sends what some work gives, or why it does not."""
        status = HTTPStatus.OK
        try:
            self._check_host()
            content, kind = work()
        except Refused as refused:
            status, words = refused.status, str(refused)
        except InputError as error:
            status, words = HTTPStatus.UNPROCESSABLE_ENTITY, str(error)
        except (ConnectionError, TimeoutError):
            raise  # the browser went away
        except Exception as error:
            logger.exception("a photo could not be answered")
            status, words = HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}; the terminal has the details."
        if status != HTTPStatus.OK:
            content, kind = to_json({"error": words})
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **HEADERS}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def _check_host(self) -> None:
        """Refuses a name that somebody else has made this machine's: a page of theirs could read the answers."""
        name = re.sub(r":\d*$", "", self.headers.get("Host", ""))
        if self.server.is_loopback and not is_loopback(name):
            self.close_connection = True
            raise Refused(HTTPStatus.FORBIDDEN, f"expected {self.server.address}, found the host {printable(name)}.")

    def _get(self) -> tuple[bytes, str]:
        path = self.path.partition("?")[0]
        if path == "/models":
            return to_json(self.server.answers.describe())
        if path not in FILES:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such page.")
        name, kind = FILES[path]
        return (Path(__file__).parent / name).read_bytes(), kind

    def _post(self) -> tuple[bytes, str]:
        path, _, query = self.path.partition("?")
        asked = {name: values[-1] for name, values in parse_qs(query).items()}
        photo, name = self._read_photo(), asked.get("name") or "the photo"
        if path == "/detect":
            return to_json(self.server.answers.find(photo, name))
        if path != "/attention":
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such page.")
        try:
            box_xyxy_px = [float(number) for number in asked["box"].split(",")]
            model, label, score = int(asked["model"]), int(asked["label"]), float(asked["score"])
        except (KeyError, ValueError) as error:
            raise Refused(HTTPStatus.BAD_REQUEST, "expected model, box, label and score as numbers.") from error
        return self.server.answers.attend(photo, name, model, box_xyxy_px, label, score), "image/png"

    def _read_photo(self) -> bytes:
        """The request's content, which stays in memory."""
        given, length = self.headers.get("Content-Type"), self.headers.get("Content-Length", "")
        is_last, self.close_connection = self.close_connection, True  # what follows is no request until it is read
        if given != PHOTO:
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"expected {PHOTO}, found {printable(given)}.")
        if not length.isdecimal():
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "expected a photo and its length.")
        if int(length) > LARGEST_PHOTO:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"expected a file of at most {LARGEST_PHOTO // 1_000_000} MB, found {int(length) / 1e6:.0f} MB. "
                "Scale the photo down.",
            )
        content = self.rfile.read(int(length))
        if len(content) < int(length):
            raise ConnectionAbortedError("the browser went away")
        self.close_connection = is_last
        return content


def to_json(content: dict[str, Any]) -> tuple[bytes, str]:
    """JSON, and its type."""
    return json.dumps(content, allow_nan=False).encode(), "application/json"
