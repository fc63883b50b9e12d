"""Sandboxes in Flask: settings from the app's configuration, one sandbox per request, streamed output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flask import Flask, Response, after_this_request, current_app, g

from sandbox_sync.errors import InvalidArgumentException
from sandbox_sync.handles import CommandHandle
from sandbox_sync.lifecycle import discard
from sandbox_sync.sandbox import Sandbox

_EXTENSION = "sandbox_sync"
_KEPT_AS = "_sandbox_sync_sandbox"
_HANDED_OVER = "_sandbox_sync_handed_over"

# Names in the app's configuration, the options of `Sandbox.create` that they set, and what they take.
_SETTINGS: dict[str, tuple[str, type]] = {
    "SANDBOX_TEMPLATE": ("template", str),
    "SANDBOX_TIMEOUT": ("timeout", int),
    "SANDBOX_REQUEST_TIMEOUT": ("request_timeout", float),
    "SANDBOX_API_KEY": ("api_key", str),
    "SANDBOX_API_URL": ("api_url", str),
    "SANDBOX_SANDBOX_URL": ("sandbox_url", str),
}
_LOCAL = "SANDBOX_LOCAL"
_SERVICE = {"api_key", "api_url", "sandbox_url"}


class Sandboxes:
    """Sandboxes for the requests of a Flask app.

    Settings are read from `app.config` by `init_app`; what is not set there is looked for where
    `Sandbox.create` looks for it:

    - SANDBOX_TEMPLATE: name or id of the template.
    - SANDBOX_TIMEOUT: lifetime of a sandbox in whole seconds. It is what ends the sandbox of a worker that
      was killed, so let it be little more than the longest request.
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
        app.extensions[_EXTENSION] = _options(app.config)
        app.teardown_appcontext(_end)

    @property
    def current(self) -> Sandbox:
        """The request's sandbox. It is made on first use, belongs to this request alone, and is killed when
        the request ends, with an error or without.

        Raises:
            InvalidArgumentException: `init_app` was not called for the app.
            SandboxException: It could not be made.
        """
        sandbox: Sandbox | None = g.get(_KEPT_AS)
        if sandbox is None:
            options = current_app.extensions.get(_EXTENSION)
            if options is None:
                raise InvalidArgumentException(
                    f"Flask app {current_app.name!r} has no sandboxes; call Sandboxes(app) or init_app(app)"
                )
            sandbox = Sandbox.create(**options)
            setattr(g, _KEPT_AS, sandbox)
        return sandbox

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
        sandbox = self.current
        handle = sandbox.commands.run(
            command, background=True, timeout=timeout, check=False, retain_output=False, **options
        )
        answer = Response(_output(handle), mimetype=mimetype)

        def end() -> None:
            discard(sandbox.connection_config, sandbox.sandbox_id)
            handle.disconnect()

        def hand_over(sent: Response) -> Response:
            # Only the answer that is sent outlives the request: a view may fail after making one.
            if sent is answer:
                setattr(g, _HANDED_OVER, True)
            return sent

        answer.call_on_close(end)
        after_this_request(hand_over)
        return answer


def _output(handle: CommandHandle) -> Iterator[str]:
    for stdout, stderr, _ in handle:
        yield stdout or stderr or ""


def _end(error: BaseException | None) -> None:
    """Kill the sandbox of what ends, unless an answer that is being sent does so when it is closed."""
    sandbox: Sandbox | None = g.pop(_KEPT_AS, None)
    handed_over = g.pop(_HANDED_OVER, False) and error is None
    if sandbox is not None and not handed_over:
        discard(sandbox.connection_config, sandbox.sandbox_id)


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    known = {*_SETTINGS, _LOCAL}
    for name in config:
        if name.startswith("SANDBOX_") and name not in known:
            raise InvalidArgumentException(f"{name} is no setting; there are {', '.join(sorted(known))}")
    options: dict[str, Any] = {}
    for name, (option, kind) in _SETTINGS.items():
        value: Any = config.get(name)
        if value is None:
            continue
        number = kind is not str
        fits = isinstance(value, (int, float) if kind is float else kind)
        if not fits or isinstance(value, bool) or (number and value <= 0):
            wanted = {str: "a text", int: "whole seconds above 0", float: "seconds above 0"}[kind]
            raise InvalidArgumentException(f"{name} takes {wanted}, not this {type(value).__name__}")
        options[option] = value
    local = config.get(_LOCAL, False)
    if not isinstance(local, bool):
        raise InvalidArgumentException(f"{_LOCAL} takes True or False, not a {type(local).__name__}")
    if local:
        remote = [name for name in config if name in _SETTINGS and _SETTINGS[name][0] in _SERVICE]
        if remote:
            raise InvalidArgumentException(f"{_LOCAL} is True, so leave out {', '.join(sorted(remote))}")
        options["domain"] = "local"
    return options
