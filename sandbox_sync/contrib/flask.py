"""Sandboxes in Flask: settings from the app's configuration, one sandbox per request, streamed output."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, after_this_request, current_app, g

from sandbox_sync.ambient import deadline
from sandbox_sync.contrib._scope import Scope
from sandbox_sync.contrib._settings import Settings, read
from sandbox_sync.errors import InvalidArgumentException
from sandbox_sync.sandbox import Sandbox

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_EXTENSION = "sandbox_sync"
_PREFIX = "SANDBOX_"
_KEPT_AS = "_sandbox_sync_scope"
_HANDED_OVER = "_sandbox_sync_handed_over"


class Sandboxes:
    """Sandboxes for the requests of a Flask app.

    Settings are read from `app.config` by `init_app`; what is not set there is looked for where
    `Sandbox.create` looks for it:

    - SANDBOX_TEMPLATE: name or id of the template.
    - SANDBOX_LEASE: whole seconds after which a sandbox ends whose worker was killed; 30 when left out.
    - SANDBOX_TIMEOUT: in place of that, the lifetime of a sandbox in whole seconds, which nothing renews.
    - SANDBOX_DEADLINE: seconds that everything that a view does with sandboxes may take, as in
      `with deadline(...)`. What `stream` sends has a timeout of its own.
    - SANDBOX_REQUEST_TIMEOUT: timeout in seconds for each call to the service.
    - SANDBOX_API_KEY, SANDBOX_API_URL, SANDBOX_SANDBOX_URL: the service.
    - SANDBOX_LOCAL: True for this machine's own server, in place of those three.
    """

    def __init__(self, app: Flask | None = None) -> None:
        """Args:
        app: The app to serve; call `init_app` later when left out.

        Raises:
            InvalidArgumentException: As from `init_app`.
        """
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read an app's settings, and end its requests' sandboxes from now on.

        Args:
            app: The app; its configuration must be complete.

        Raises:
            InvalidArgumentException: A setting is wrong; the message names it.
        """
        given = {name: value for name, value in app.config.items() if name.startswith(_PREFIX)}
        settings = read(
            {name[len(_PREFIX) :].lower(): value for name, value in given.items()},
            lambda name: _PREFIX + name.upper(),
        )
        app.extensions[_EXTENSION] = settings
        app.teardown_appcontext(_end)
        if settings.deadline is not None:
            app.wsgi_app = _bounded(app.wsgi_app, settings.deadline)  # type: ignore[method-assign]

    @property
    def current(self) -> Sandbox:
        """The request's sandbox. It is made on first use, belongs to this request alone, and is killed when
        the request ends, with an error or without.

        Raises:
            InvalidArgumentException: `init_app` was not called for the app.
            SandboxException: It could not be made.
        """
        return _scope().sandbox()

    def stream(
        self, command: str, *, timeout: float | None = 60, mimetype: str = "text/plain", **options: Any
    ) -> Response:
        """Answer with a command's output, stdout and stderr, as it arrives.

        The sandbox is killed, and the command with it, when the answer has been sent or the client has gone.
        A server notices that a client has gone when it sends: a command that prints nothing goes on until
        `timeout`. The answer has begun before the command ends, so its exit code is not in the status.

        Args:
            command: The command, as for `sandbox.commands.run`.
            timeout: How long it may run, in seconds; None for no limit.
            mimetype: Type of the answer.
            **options: `envs`, `user` and `cwd`, as for `sandbox.commands.run`.

        Returns:
            The response, for the view to return.

        Raises:
            SandboxException: The command could not be started. What fails later cuts the answer short.
        """
        scope = _scope()
        answer = Response(scope.stream(command, timeout, options), mimetype=mimetype)
        answer.headers["X-Accel-Buffering"] = "no"  # nginx keeps answers back otherwise

        def hand_over(sent: Response) -> Response:
            # Only the answer that is sent outlives the request: a view may fail after making one.
            if sent is answer:
                setattr(g, _HANDED_OVER, True)
            return sent

        answer.call_on_close(scope.end)
        after_this_request(hand_over)
        return answer


def _scope() -> Scope:
    scope: Scope | None = g.get(_KEPT_AS)
    if scope is None:
        settings: Settings | None = current_app.extensions.get(_EXTENSION)
        if settings is None:
            raise InvalidArgumentException(
                f"Flask app {current_app.name!r} has no sandboxes; call Sandboxes(app) or init_app(app)"
            )
        scope = Scope(settings)
        setattr(g, _KEPT_AS, scope)
    return scope


def _end(error: BaseException | None) -> None:
    """Kill the sandbox of what ends, unless an answer that is being sent does so when it is closed."""
    scope: Scope | None = g.pop(_KEPT_AS, None)
    handed_over = g.pop(_HANDED_OVER, False) and error is None
    if scope is not None and not handed_over:
        scope.end()


def _bounded(app: WSGIApplication, seconds: float) -> Callable[..., Iterable[bytes]]:
    """An app that has so many seconds to begin each answer."""

    def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        with deadline(seconds):
            return app(environ, start_response)

    return call
