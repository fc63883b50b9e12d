"""Servers and workers that tests start, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

from sandbox_sync import Sandbox

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
PATIENCE = 30.0


def ids() -> set[str]:
    """Sandboxes that there are."""
    return {item.sandbox_id for item in Sandbox.list()}


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


def wait_until_none_is_left() -> None:
    """Wait until there is no sandbox."""
    wait_for(lambda: not ids(), "the end of all sandboxes")


@contextmanager
def program(
    command: Sequence[str], environment: Mapping[str, str], log: Path, **options: object
) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program that runs meanwhile, with all the processes that it starts."""
    with log.open("wb") as output:
        started = subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            **options,  # type: ignore[call-overload]
        )
    try:
        yield started
    except BaseException:
        sys.stderr.write(log.read_text(errors="replace"))
        raise
    finally:
        started.terminate()
        try:
            started.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(started.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        started.wait()


@contextmanager
def gunicorn(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[int]:
    """An example under gunicorn with four threads: its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        descriptor = listener.fileno()
        command = ["-m", "gunicorn", "--no-control-socket", "--bind", f"fd://{descriptor}", "--threads", "4"]
        with program([*command, *arguments], environment, log, pass_fds=[descriptor]):
            yield port


def post(port: int, path: str, code: str) -> HTTPConnection:
    """Send code to an example."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("POST", path, json.dumps({"code": code}), {"Content-Type": "application/json"})
    return connection


def answers_without_sharing(example: int) -> None:
    """Requests to an example at the same time have a sandbox each."""
    code = "import os; print(os.path.exists('/tmp/mark')); open('/tmp/mark', 'w').close()"
    answers = []

    def ask() -> None:
        with closing(post(example, "/run", code)) as connection:
            answers.append(json.load(connection.getresponse()))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [{"stdout": "False\n", "stderr": "", "exit_code": 0}] * 3
    wait_until_none_is_left()


def streams_until_the_client_goes(example: int) -> None:
    """An example sends output as it comes, and ends the sandbox when nobody takes it any more."""
    endless = "import time\nwhile True: print('x' * 4000); time.sleep(0.05)"
    with closing(post(example, "/stream", endless)) as connection, connection.getresponse() as answer:
        assert answer.read(1) == b"x"
        assert len(ids()) == 1
    wait_until_none_is_left()
