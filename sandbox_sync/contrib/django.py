"""Sandboxes in Django: settings, one sandbox per request, streamed output, and a check of what is set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.functional import SimpleLazyObject

from sandbox_sync.ambient import deadline
from sandbox_sync.contrib._scope import Scope
from sandbox_sync.contrib._settings import Settings, read
from sandbox_sync.errors import InvalidArgumentException
from sandbox_sync.sandbox import Sandbox

_SETTING = "SANDBOX"
_KEPT_AS = "_sandbox_sync_scope"


class SandboxRequest(HttpRequest):
    """A request as views have it behind `SandboxMiddleware`: a type to annotate with, never made.

    Attributes:
        sandbox: The request's sandbox. It is made on first use, belongs to this request alone, and is killed
            when the view has answered, with an error or without; where the answer is a streaming one, when
            that has been sent or the client has gone.
    """

    sandbox: Sandbox


class SandboxConfig(AppConfig):
    """The app for INSTALLED_APPS, which checks the settings: "sandbox_sync.contrib.django.SandboxConfig"."""

    name = "sandbox_sync.contrib.django"
    label = "sandbox_sync"
    verbose_name = "Sandboxes"

    def ready(self) -> None:
        """Register the check."""
        checks.register(check_settings)


class SandboxMiddleware:
    """Gives each request a sandbox, `request.sandbox`.

    Settings are those of the dictionary SANDBOX; what is not set there is looked for where `Sandbox.create`
    looks for it:

    - TEMPLATE: name or id of the template.
    - LEASE: whole seconds after which a sandbox ends whose worker was killed; 30 when left out.
    - TIMEOUT: in place of that, the lifetime of a sandbox in whole seconds, which nothing renews.
    - DEADLINE: seconds that everything that a view does with sandboxes may take, as in `with deadline(...)`.
      What `stream` sends has a timeout of its own.
    - REQUEST_TIMEOUT: timeout in seconds for each call to the service.
    - API_KEY, API_URL, SANDBOX_URL: the service.
    - LOCAL: True for this machine's own server, in place of those three.

    It is made for WSGI. Under ASGI, Django runs it and views that are functions in a thread, where all works,
    but collects the answers of `stream` before it sends them. A view that is a coroutine must not touch
    `request.sandbox` itself, which blocks.
    """

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        """Args:
        get_response: What answers the request, as Django gives it.

        Raises:
            ImproperlyConfigured: A setting is wrong; the message names it.
        """
        self._get_response = get_response
        self._settings = _read()

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Have a request answered, and end its sandbox.

        Args:
            request: The request.

        Returns:
            The answer. A streaming one ends the sandbox when it is closed.
        """
        scope = Scope(self._settings)
        request.sandbox = SimpleLazyObject(scope.sandbox)  # type: ignore[attr-defined]
        setattr(request, _KEPT_AS, scope)
        handed_over = False
        try:
            with deadline(self._settings.deadline):
                response = self._get_response(request)
            if response.streaming:
                response._resource_closers.append(scope.end)  # type: ignore[attr-defined]
                handed_over = True
            return response
        finally:
            if not handed_over:
                scope.end()


def stream(
    request: HttpRequest,
    command: str,
    *,
    timeout: float | None = 60,
    content_type: str = "text/plain; charset=utf-8",
    **options: Any,
) -> StreamingHttpResponse:
    """Answer with a command's output, stdout and stderr, as it arrives.

    The sandbox is killed, and the command with it, when the answer has been sent or the client has gone. A
    server notices that a client has gone when it sends: a command that prints nothing goes on until
    `timeout`. The answer has begun before the command ends, so its exit code is not in the status.

    Args:
        request: The request, in whose sandbox the command runs.
        command: The command, as for `sandbox.commands.run`.
        timeout: How long it may run, in seconds; None for no limit.
        content_type: Type of the answer.
        **options: `envs`, `user` and `cwd`, as for `sandbox.commands.run`.

    Returns:
        The response, for the view to return.

    Raises:
        ImproperlyConfigured: `SandboxMiddleware` is not in MIDDLEWARE.
        SandboxException: The command could not be started. What fails later cuts the answer short.
    """
    scope: Scope | None = getattr(request, _KEPT_AS, None)
    if scope is None:
        raise ImproperlyConfigured(f"This request has no sandbox; add {_MIDDLEWARE!r} to MIDDLEWARE")
    answer = StreamingHttpResponse(scope.stream(command, timeout, options), content_type=content_type)
    answer.headers["X-Accel-Buffering"] = "no"  # nginx keeps answers back otherwise
    return answer


def check_settings(
    app_configs: Sequence[AppConfig] | None = None, **options: Any
) -> list[checks.CheckMessage]:
    """Say what is wrong with the settings, for `manage.py check`.

    Args:
        app_configs: The apps to check; not needed.
        **options: What else Django gives; not needed.
    """
    found: list[checks.CheckMessage] = []
    try:
        _read()
    except ImproperlyConfigured as error:
        found.append(checks.Error(str(error), id="sandbox_sync.E001"))
    if _MIDDLEWARE not in settings.MIDDLEWARE:
        hint = f"Add {_MIDDLEWARE!r}."
        found.append(
            checks.Warning("MIDDLEWARE gives requests no sandbox.", hint=hint, id="sandbox_sync.W001")
        )
    return found


_MIDDLEWARE = f"{SandboxMiddleware.__module__}.{SandboxMiddleware.__qualname__}"


def _spelled(name: str) -> str:
    return f"{_SETTING}[{name.upper()!r}]"


def _read() -> Settings:
    given: Any = getattr(settings, _SETTING, {})
    if not isinstance(given, dict):
        raise ImproperlyConfigured(f"{_SETTING} takes a dictionary, not this {type(given).__name__}")
    try:
        if odd := [name for name in given if not isinstance(name, str) or name != name.upper()]:
            raise InvalidArgumentException(
                f"{_SETTING}[{odd[0]!r}] is no setting; their names are upper case"
            )
        return read({name.lower(): value for name, value in given.items()}, _spelled)
    except InvalidArgumentException as error:
        raise ImproperlyConfigured(str(error)) from None
