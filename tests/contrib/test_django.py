"""Sandboxes in Django: with the framework's own test clients, and the example under gunicorn."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import django
import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import clear_url_caches, path

from sandbox_sync import DeadlineExceededException
from sandbox_sync.contrib.django import SandboxMiddleware, SandboxRequest, check_settings, stream
from tests.contrib.serving import (
    EXAMPLES,
    answers_without_sharing,
    gunicorn,
    ids,
    streams_until_the_client_goes,
)

MIDDLEWARE = "sandbox_sync.contrib.django.SandboxMiddleware"
SETTINGS = {"ALLOWED_HOSTS": ["testserver"], "MIDDLEWARE": [MIDDLEWARE], "SECRET_KEY": "not one"}

View = Callable[[SandboxRequest], HttpResponseBase]


@pytest.fixture(scope="module", autouse=True)
def configured() -> None:
    settings.configure(**SETTINGS)
    django.setup()


@pytest.fixture
def served(own_server: dict[str, str]) -> Iterator[Callable[[View], None]]:
    """Has a view answer at /."""
    urls = ModuleType("urls")
    with override_settings(ROOT_URLCONF=urls):

        def serve(view: View) -> None:
            urls.__dict__["urlpatterns"] = [path("", view)]
            clear_url_caches()

        yield serve


@pytest.fixture
def example(own_server: dict[str, str], tmp_path: Path) -> Iterator[int]:
    """Port of the example under gunicorn."""
    arguments = ["--chdir", str(EXAMPLES / "django_app"), "app:application"]
    with gunicorn(arguments, own_server, tmp_path / "log") as port:
        yield port


def test_a_request_has_one_sandbox_and_ends_it(served: Callable[[View], None]) -> None:
    def view(request: SandboxRequest) -> HttpResponse:
        if "without" not in request.GET:
            assert {request.sandbox.sandbox_id} == ids() == {request.sandbox.sandbox_id}
        return HttpResponse(" ".join(ids()))

    served(view)
    first, second = (Client().get("/").content for _ in range(2))
    assert first
    assert second
    assert first != second
    assert Client().get("/", {"without": 1}).content == b""
    assert ids() == set()


def test_a_view_that_fails_ends_its_sandbox(served: Callable[[View], None]) -> None:
    made: list[str] = []

    def view(request: SandboxRequest) -> HttpResponse:
        made.append(request.sandbox.sandbox_id)
        stream(request, "sleep 1000", timeout=None)
        raise ValueError("no")

    served(view)
    assert Client(raise_request_exception=False).get("/").status_code == 500
    assert len(made) == 1
    assert ids() == set()


def test_any_streaming_answer_keeps_its_sandbox_until_it_is_closed(served: Callable[[View], None]) -> None:
    def view(request: SandboxRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(request.sandbox.commands.run("printf %s part").stdout for _ in range(2))

    served(view)
    answer = Client().get("/")
    assert b"".join(answer) == b"partpart"
    assert ids() == set()


def test_an_answer_that_was_never_read_ends_its_sandbox(served: Callable[[View], None]) -> None:
    def view(request: HttpRequest) -> HttpResponseBase:
        answer = stream(request, "sleep 1000", timeout=None)
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        return answer

    answer = SandboxMiddleware(view)(RequestFactory().get("/"))
    assert len(ids()) == 1
    answer.close()
    assert ids() == set()


def test_a_request_that_is_over_makes_no_more_sandboxes(served: Callable[[View], None]) -> None:
    request = RequestFactory().get("/")
    SandboxMiddleware(lambda _: HttpResponse())(request)
    with pytest.raises(Exception, match="has ended"):
        request.sandbox.commands  # type: ignore[attr-defined]  # noqa: B018
    assert ids() == set()


def test_a_view_has_a_deadline_and_its_stream_a_timeout_of_its_own(served: Callable[[View], None]) -> None:
    def view(request: SandboxRequest) -> HttpResponseBase:
        with pytest.raises(DeadlineExceededException):
            request.sandbox.commands.run("sleep 1000", timeout=0)
        return HttpResponse("late")

    def live(request: SandboxRequest) -> HttpResponseBase:
        return stream(request, "sleep 1.5; echo alive")

    with override_settings(SANDBOX={"DEADLINE": 1}):
        served(view)
        assert Client().get("/").content == b"late"
        served(live)
        assert b"".join(Client().get("/")) == b"alive\n"
    assert ids() == set()


def test_views_that_are_functions_work_under_asgi(served: Callable[[View], None]) -> None:
    def view(request: SandboxRequest) -> HttpResponse:
        return HttpResponse(request.sandbox.commands.run("echo asgi").stdout)

    async def ask() -> bytes:
        with override_settings(SANDBOX={"DEADLINE": 60}):
            return bytes((await AsyncClient().get("/")).content)

    served(view)
    assert asyncio.run(ask()) == b"asgi\n"
    assert ids() == set()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"TIMEOUT": "60"}, r"SANDBOX\['TIMEOUT'\] takes whole seconds above 0"),
        ({"TEMPLTE": "base"}, r"SANDBOX\['TEMPLTE'\] is no setting; there are .*SANDBOX\['TEMPLATE'\]"),
        ({"timeout": 60}, r"SANDBOX\['timeout'\] is no setting; their names are upper case"),
        ({"LOCAL": True, "API_KEY": "secret"}, r"leave out SANDBOX\['API_KEY'\]"),
        (["TIMEOUT"], "SANDBOX takes a dictionary"),
    ],
)
def test_a_wrong_setting_is_named(given: object, words: str) -> None:
    with override_settings(SANDBOX=given):
        with pytest.raises(ImproperlyConfigured, match=words) as raised:
            SandboxMiddleware(lambda _: HttpResponse())
        assert "secret" not in str(raised.value)
        assert [(found.id, found.msg) for found in check_settings()] == [
            ("sandbox_sync.E001", str(raised.value))
        ]


def test_a_middleware_that_is_missing_is_told() -> None:
    assert check_settings() == []
    with override_settings(MIDDLEWARE=[]):
        assert [found.id for found in check_settings()] == ["sandbox_sync.W001"]
    with pytest.raises(ImproperlyConfigured, match=f"add '{MIDDLEWARE}'"):
        stream(RequestFactory().get("/"), "true")


def test_the_check_runs_with_those_of_django() -> None:
    program = (
        "import app; app.settings.SANDBOX['TIMEOUT'] = 0; app.execute_from_command_line(['app', 'check'])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=EXAMPLES / "django_app",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "(sandbox_sync.E001) SANDBOX['TIMEOUT'] takes whole seconds above 0" in ended.stderr
    assert ended.returncode == 1


def test_the_example_answers_and_shares_no_sandbox(example: int) -> None:
    answers_without_sharing(example)


def test_the_example_streams_and_a_client_that_goes_ends_the_sandbox(example: int) -> None:
    streams_until_the_client_goes(example)
