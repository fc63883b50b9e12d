"""Preforking web servers for promise programs: each serves the app in web_app.py with two workers.

A server gets a socket that listens already, so nobody has to look for a free port or to wait: requests that
come early wait in the socket's queue. It stays in the program's process group, which the runner ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import IO
from urllib.parse import urlencode

HERE = Path(__file__).parent
WORKERS = 2

# A server that has just been started imports the app first.
START_SECONDS = 20.0

_PR_SET_CHILD_SUBREAPER = 36

GUNICORN = ("-m", "gunicorn", "--no-control-socket", "--bind", "fd://{fd}", "--workers", str(WORKERS))
APP = ("--chdir", str(HERE), "web_app:application")
UWSGI = ("-c", "import pyuwsgi; pyuwsgi.run()", "--http-socket", "fd://{fd}", "--processes", str(WORKERS))
UWSGI_APP = ("--master", "--enable-threads", "--need-app", "--chdir", str(HERE), "--wsgi", "web_app")
# SIGTERM would have it load everything anew.
UWSGI_STOP = ("--hook-master-start", "unix_signal:15 gracefully_kill_them_all")

COMMANDS: dict[str, tuple[str, ...]] = {
    "sync": (*GUNICORN, *APP),
    "sync-preload": (*GUNICORN, "--preload", *APP),
    "gthread-preload": (*GUNICORN, "--threads", "4", "--preload", *APP),
    "gevent": (*GUNICORN, "--worker-class", "gevent", *APP),
    "gevent-preload": (*GUNICORN, "--worker-class", "gevent", "--preload", *APP),
    "uwsgi": (*UWSGI, *UWSGI_STOP, *UWSGI_APP),
    "uwsgi-lazy": (*UWSGI, *UWSGI_STOP, "--lazy-apps", *UWSGI_APP),
    "prefork": (str(HERE / "prefork.py"), "{fd}", str(WORKERS)),
}


@dataclass(frozen=True)
class Answer:
    """What a worker said."""

    status: int
    text: str
    worker: int
    seconds: float


class Server:
    """A server that runs."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: IO[str]) -> None:
        self.process = process
        self.port = port
        self._log = log

    @property
    def log(self) -> str:
        """What the server and the app have printed."""
        self._log.seek(0)
        return self._log.read()

    def ask(self, path: str, command: str = "", seconds: float = 5.0) -> Answer:
        """Have a worker run a command.

        Raises:
            OSError: It does not answer in time, or not at all.
        """
        begin = time.monotonic()
        connection = HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            connection.request("GET", f"{path}?{urlencode({'command': command})}")
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        worker = int(answer.getheader("X-Worker", "0"))
        return Answer(answer.status, text, worker, time.monotonic() - begin)

    def stop(self, number: int, seconds: float) -> float | None:
        """Send a signal to the first process; seconds until it has ended, None if it has not."""
        begin = time.monotonic()
        self.process.send_signal(number)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        return time.monotonic() - begin


@contextmanager
def serving(kind: str, *options: str) -> Iterator[Server]:
    """Run a server, one of COMMANDS, with more options of its own."""
    command = COMMANDS[kind]
    _adopt()
    # Files, and no pipes, which the server's processes would fill or hold open.
    with tempfile.TemporaryFile("w+") as log, socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        port: int = listener.getsockname()[1]
        filled = [word.format(fd=listener.fileno()) if "{fd}" in word else word for word in command]
        process = subprocess.Popen(
            [sys.executable, *filled[:-1], *options, filled[-1]],
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        listener.close()
        try:
            yield Server(process, port, log)
        finally:
            process.kill()
            process.wait()
            _end_others()


def _adopt() -> None:
    """Have workers whose parent has been killed be this process's children, which it can wait for."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_others() -> None:
    for pid in others():
        os.kill(pid, signal.SIGKILL)
    try:
        while True:
            os.wait()
    except ChildProcessError:
        pass


def others() -> list[int]:
    """The processes of this program's group, without itself."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                state, _, group = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(group) == os.getpgrp() and state not in "ZX":
                found.append(int(name))
    return found
