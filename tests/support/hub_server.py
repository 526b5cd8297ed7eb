"""A Hugging Face hub on 127.0.0.1 that serves folders: what huggingface_hub and datasets ask of the real one.

Answers as https://huggingface.co/docs/hub/api gives them; ``HF_ENDPOINT`` points the libraries here.
"""

import hashlib
import json
import re
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Repository = tuple[str, str]
"""``models`` or ``datasets``, and its id (``owner/name``)."""
_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?$")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)$")


class HubServer(ThreadingHTTPServer):
    """Files of ``gated`` ids are given to requests with a token only. ``asked`` are the methods and paths of
    all requests, in order."""

    daemon_threads = True

    def __init__(self, repositories: Mapping[Repository, Path], gated: Collection[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories, self.gated = dict(repositories), frozenset(gated)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes = b"") -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        if found := _API.match(path):
            kind, name, what, revision, below = found.groups()
            folder = self.server.repositories.get((kind, name))
            if folder is None or revision not in (None, "main", _commit(name)):
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            elif what == "tree":
                self._send_json([_entry(folder, file) for file in _files(folder) if _is_below(file, below)])
            elif what == "paths-info":
                self._send_json(
                    [_entry(folder, file) for file in self._paths(body) if (folder / file).exists()]
                )
            else:
                siblings = [{"rfilename": file} for file in _files(folder)]
                self._send_json({"id": name, "sha": _commit(name), "siblings": siblings, "private": False})
        elif found := _FILE.match(path):
            kind, name, _, file = "datasets" if found[1] else "models", found[2], found[3], found[4]
            self._send_file(self.server.repositories.get((kind, name)), name, file)
        else:
            self._send(404, b"{}")

    def _paths(self, body: bytes) -> list[str]:
        if "json" in self.headers.get("Content-Type", ""):
            return json.loads(body)["paths"]
        return parse_qs(body.decode())["paths"]

    def _send_file(self, folder: Path | None, name: str, file: str) -> None:
        if folder is None:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif name in self.server.gated and "Authorization" not in self.headers:
            self._send(401, b"", {"X-Error-Code": "GatedRepo"})
        elif not (folder / file).is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": _commit(name)})
        else:
            content = (folder / file).read_bytes()
            etag = hashlib.sha256(content).hexdigest()
            self._send(200, content, {"X-Repo-Commit": _commit(name), "ETag": f'"{etag}"'})

    def _send_json(self, answer: Any) -> None:
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str] = {}) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def _commit(name: str) -> str:
    return hashlib.sha1(name.encode()).hexdigest()


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _is_below(file: str, folder: str | None) -> bool:
    return not folder or file.startswith(f"{folder}/")


def _entry(folder: Path, file: str) -> dict[str, Any]:
    path = folder / file
    if path.is_dir():
        return {"type": "directory", "path": file, "oid": _commit(file)}
    return {"type": "file", "path": file, "size": path.stat().st_size, "oid": _commit(file)}


@contextmanager
def hub_server(repositories: Mapping[Repository, Path], gated: Collection[str] = ()) -> Iterator[HubServer]:
    """Serve each folder as the repository it stands for, until the block ends."""
    server = HubServer(repositories, gated)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
