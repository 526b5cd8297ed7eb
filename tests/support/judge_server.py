"""A chat server on 127.0.0.1 whose replies a test decides, by what the solution says."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], bytes]


def chat(text: Any, prompt_tokens: Any = 100, completion_tokens: Any = 10) -> Reply:
    """A reply as OpenAI-compatible servers give it."""
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    body = {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": usage}
    return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()


class JudgeServer(ThreadingHTTPServer):
    """``reply`` takes the request's JSON and says what to answer; None hangs up without an answer."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, reply: Callable[[dict[str, Any]], Reply | None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.now, self.most_at_once = 0, 0
        self.lock = threading.Lock()
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: JudgeServer

    def do_POST(self) -> None:
        server = self.server
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append(request)
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            server.now += 1
            server.most_at_once = max(server.most_at_once, server.now)
        try:
            assert self.path == "/v1/chat/completions"
            reply = None if server.over.is_set() else server.reply(request)
        finally:
            with server.lock:
                server.now -= 1
        if reply is None:
            self.close_connection = True
            return
        status, headers, body = reply
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        slow = headers.get("X-Slow")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for i in range(0, len(body), 1 if slow else len(body)):
            self.wfile.write(body[i : i + 1] if slow else body)
            if slow:
                time.sleep(float(slow))

    def log_message(self, *_: Any) -> None:
        pass


def solution(request: dict[str, Any]) -> str:
    """The completion between its marks."""
    lines = request["messages"][1]["content"].split("\n")
    first = next(i for i, line in enumerate(lines) if line.startswith("<<< solution "))
    mark = lines[first].removeprefix("<<< solution ")
    return "\n".join(lines[first + 1 : lines.index(f"<<< end of solution {mark}")])


@contextmanager
def judge_server(reply: Callable[[dict[str, Any]], Reply | None]) -> Iterator[JudgeServer]:
    """A running server; it is gone after the block."""
    server = JudgeServer(reply)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
