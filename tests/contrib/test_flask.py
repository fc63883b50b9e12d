"""Sandboxes in a Flask app: in the framework's own test client, and the example under gunicorn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask, Response, abort
from werkzeug.test import create_environ

from sandbox_sync import DeadlineExceededException, InvalidArgumentException
from sandbox_sync.contrib.flask import Sandboxes
from tests.contrib.serving import (
    EXAMPLES,
    answers_without_sharing,
    gunicorn,
    ids,
    streams_until_the_client_goes,
)


@pytest.fixture
def example(own_server: dict[str, str], tmp_path: Path) -> Iterator[int]:
    """Port of the example under gunicorn."""
    with gunicorn(["--chdir", str(EXAMPLES / "flask_app"), "app:app"], own_server, tmp_path / "log") as port:
        yield port


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


def test_an_answer_without_a_body_ends_its_sandbox(own_server: dict[str, str]) -> None:
    app = Flask(__name__)
    sandboxes = Sandboxes(app)

    @app.get("/")
    def view() -> Response:
        return sandboxes.stream("sleep 1000", timeout=None)

    with app.test_client().head("/") as answer:
        assert answer.data == b""
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


def test_a_view_has_a_deadline_and_its_stream_a_timeout_of_its_own(own_server: dict[str, str]) -> None:
    app = Flask(__name__)
    app.config["SANDBOX_DEADLINE"] = 1
    sandboxes = Sandboxes(app)

    @app.get("/")
    def view() -> str:
        with pytest.raises(DeadlineExceededException):
            sandboxes.current.commands.run("sleep 1000", timeout=0)
        return "late"

    @app.get("/live")
    def live() -> Response:
        return sandboxes.stream("sleep 1.5; echo alive")

    client = app.test_client()
    assert client.get("/").text == "late"
    with client.get("/live") as answer:
        assert answer.data == b"alive\n"
    assert ids() == set()


def test_a_sandbox_ends_soon_after_its_worker_unless_told_otherwise(own_server: dict[str, str]) -> None:
    def lives(**settings: object) -> float:
        app = Flask(__name__)
        app.config.update(settings)
        sandboxes = Sandboxes(app)
        with app.app_context():
            info = sandboxes.current.get_info()
        return (info.end_at - info.started_at).total_seconds()

    assert 25 < lives() < 35
    assert 85 < lives(SANDBOX_TIMEOUT=90) < 95
    assert 45 < lives(SANDBOX_LEASE=50) < 55


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"SANDBOX_TIMEOUT": "60"}, "SANDBOX_TIMEOUT takes whole seconds above 0"),
        ({"SANDBOX_TIMEOUT": 0}, "SANDBOX_TIMEOUT takes whole seconds above 0"),
        ({"SANDBOX_TEMPLTE": "base"}, "SANDBOX_TEMPLTE is no setting"),
        ({"SANDBOX_LEASE": 2}, "SANDBOX_LEASE takes whole seconds, 3 or more"),
        ({"SANDBOX_LEASE": 9, "SANDBOX_TIMEOUT": 9}, "SANDBOX_TIMEOUT and SANDBOX_LEASE exclude each other"),
        ({"SANDBOX_DEADLINE": True}, "SANDBOX_DEADLINE takes seconds above 0"),
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


def test_a_key_is_not_shown() -> None:
    app = Flask(__name__)
    app.config["SANDBOX_API_KEY"] = "secret"
    Sandboxes(app)
    assert "secret" not in repr(app.extensions)


def test_an_app_without_sandboxes_says_so() -> None:
    with Flask("bare").app_context(), pytest.raises(InvalidArgumentException, match=r"'bare'.*init_app"):
        _ = Sandboxes().current


def test_the_example_answers_and_shares_no_sandbox(example: int) -> None:
    answers_without_sharing(example)


def test_the_example_streams_and_a_client_that_goes_ends_the_sandbox(example: int) -> None:
    streams_until_the_client_goes(example)
