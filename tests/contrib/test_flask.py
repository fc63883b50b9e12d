"""Sandboxes in a Flask app: in the framework's own test client, and the example under gunicorn."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
from flask import Flask, Response, abort
from werkzeug.test import create_environ

from sandbox_local import LocalServer
from sandbox_sync import InvalidArgumentException, Sandbox
from sandbox_sync.contrib.flask import Sandboxes

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "flask_app"
PATIENCE = 15.0


@pytest.fixture
def own_server(server_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A server whose sandboxes are all the test's own, so that they can be counted."""
    with LocalServer() as running:
        for name, value in running.env.items():
            monkeypatch.setenv(name, value)
        yield running.env


@pytest.fixture
def gunicorn(own_server: dict[str, str], tmp_path: Path) -> Iterator[int]:
    """Port of the example under gunicorn, with two workers' threads."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        descriptor = listener.fileno()
        command = [sys.executable, "-m", "gunicorn", "--no-control-socket", "--bind", f"fd://{descriptor}"]
        with (tmp_path / "log").open("wb") as log:
            started = subprocess.Popen(
                [*command, "--threads", "4", "--chdir", str(EXAMPLE), "app:app"],
                pass_fds=[descriptor],
                env={**os.environ, **own_server},
                stdout=log,
                stderr=log,
            )
        try:
            yield port
        finally:
            started.terminate()
            try:
                started.wait(PATIENCE)
            finally:
                started.kill()
                started.wait()


def ids() -> set[str]:
    return {item.sandbox_id for item in Sandbox.list()}


def wait_until_none_is_left() -> None:
    end = time.monotonic() + PATIENCE
    while left := ids():
        assert time.monotonic() < end, f"still there: {left}"
        time.sleep(0.05)


def post(port: int, path: str, code: str) -> HTTPConnection:
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("POST", path, json.dumps({"code": code}), {"Content-Type": "application/json"})
    return connection


def test_a_request_has_one_sandbox_and_ends_it(own_server: dict[str, str]) -> None:
    app = Flask(__name__)
    sandboxes = Sandboxes(app)

    @app.get("/")
    def view() -> list[str]:
        assert {sandboxes.current.sandbox_id} == ids()
        return [sandboxes.current.sandbox_id]

    @app.get("/without")
    def without() -> list[str]:
        return sorted(ids())

    client = app.test_client()
    first, second = client.get("/").json, client.get("/").json
    assert first
    assert second
    assert first != second
    assert client.get("/without").json == []


def test_a_view_that_fails_ends_its_sandbox(own_server: dict[str, str]) -> None:
    app = Flask(__name__)
    sandboxes = Sandboxes(app)
    made: list[str] = []

    @app.get("/")
    def view() -> str:
        made.append(sandboxes.current.sandbox_id)
        raise ValueError("no")

    assert app.test_client().get("/").status_code == 500
    assert len(made) == 1
    assert ids() == set()


def test_an_answer_that_was_never_read_ends_its_sandbox(own_server: dict[str, str]) -> None:
    app = Flask(__name__)
    sandboxes = Sandboxes(app)
    running: list[str] = []

    @app.get("/")
    def view() -> Response:
        answer = sandboxes.stream("sleep 1000", timeout=None)
        running.extend(ids())
        return answer

    # The test client would wait for the first of the output.
    answer = app.wsgi_app(create_environ("/"), lambda *_: lambda _: None)
    assert ids() == set(running) != set()
    answer.close()  # type: ignore[attr-defined]
    assert ids() == set()


def test_an_answer_that_is_not_the_one_sent_ends_its_sandbox(own_server: dict[str, str]) -> None:
    app = Flask(__name__)
    sandboxes = Sandboxes(app)

    @app.get("/")
    def view() -> Response:
        sandboxes.stream("sleep 1000", timeout=None)
        abort(404)

    assert app.test_client().get("/").status_code == 404
    assert ids() == set()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"SANDBOX_TIMEOUT": "60"}, "SANDBOX_TIMEOUT takes whole seconds above 0"),
        ({"SANDBOX_TIMEOUT": 0}, "SANDBOX_TIMEOUT takes whole seconds above 0"),
        ({"SANDBOX_TEMPLTE": "base"}, "SANDBOX_TEMPLTE is no setting"),
        ({"SANDBOX_LOCAL": "1"}, "SANDBOX_LOCAL takes True or False"),
        ({"SANDBOX_LOCAL": True, "SANDBOX_API_KEY": "secret"}, "leave out SANDBOX_API_KEY"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], words: str) -> None:
    app = Flask(__name__)
    app.config.update(settings)
    with pytest.raises(InvalidArgumentException, match=words) as raised:
        Sandboxes(app)
    assert "secret" not in str(raised.value)


def test_an_app_without_sandboxes_says_so() -> None:
    with Flask("bare").app_context(), pytest.raises(InvalidArgumentException, match=r"'bare'.*init_app"):
        _ = Sandboxes().current


def test_the_example_answers_and_shares_no_sandbox(gunicorn: int) -> None:
    code = "import os; print(os.path.exists('/tmp/mark')); open('/tmp/mark', 'w').close()"
    answers = []

    def ask() -> None:
        with closing(post(gunicorn, "/run", code)) as connection:
            answers.append(json.load(connection.getresponse()))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [{"stdout": "False\n", "stderr": "", "exit_code": 0}] * 3
    wait_until_none_is_left()


def test_the_example_streams_and_a_client_that_goes_ends_the_sandbox(gunicorn: int) -> None:
    endless = "import time\nwhile True: print('x' * 4000); time.sleep(0.05)"
    with closing(post(gunicorn, "/stream", endless)) as connection, connection.getresponse() as answer:
        assert answer.read(1) == b"x"
        assert len(ids()) == 1
    wait_until_none_is_left()
