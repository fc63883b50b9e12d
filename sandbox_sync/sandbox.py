"""`Sandbox`: make isolated environments and find them again, run commands in them, move files, end them."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from sandbox_sync import by_id, lifecycle
from sandbox_sync._class_or_instance import also_on_class, also_on_class_returning_self
from sandbox_sync.by_id import configure
from sandbox_sync.commands import Commands
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.errors import SandboxNotFoundException
from sandbox_sync.filesystem import Filesystem
from sandbox_sync.listing import Listing
from sandbox_sync.models import ConnectionOptions, SandboxInfo, SandboxQuery
from sandbox_sync.pty import Pty
from sandbox_sync.transport.envd import EnvdConnection

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class _Inside(NamedTuple):
    """The way into a sandbox and what works through it."""

    envd: EnvdConnection
    files: Filesystem
    commands: Commands
    pty: Pty

    @classmethod
    def reached_with(cls, config: ConnectionConfig, access: lifecycle.Access) -> Self:
        """Make it."""
        envd = EnvdConnection(config, access.sandbox_id, access.domain, access.token)
        commands = Commands(envd)
        return cls(envd, Filesystem(envd), commands, Pty(envd, commands))


class Sandbox:
    """An isolated Linux environment. Make one with `Sandbox.create()`, or attach with `Sandbox.connect(id)`.

    A sandbox may be used from any thread and in forked processes. It pickles: the copy attaches to the same
    sandbox when it is first used, with the API key of the environment that it is then in. Leaving a `with`
    block kills the sandbox.

    Example:
        >>> with Sandbox.create() as sandbox:
        ...     sandbox.files.write("hello.txt", "hello")
        ...     print(sandbox.commands.run("cat hello.txt").stdout)
    """

    default_template = "base"
    """The template of `create()` when none is named; for subclasses to change."""

    def __init__(self, config: ConnectionConfig, sandbox_id: str, inside: _Inside | None = None) -> None:
        """Use `Sandbox.create()` or `Sandbox.connect()` instead."""
        self._config = config
        self._sandbox_id = sandbox_id
        self._inside = inside

    @property
    def sandbox_id(self) -> str:
        """Unique id of the sandbox."""
        return self._sandbox_id

    @property
    def files(self) -> Filesystem:
        """The files in the sandbox."""
        return self._open().files

    @property
    def commands(self) -> Commands:
        """The commands in the sandbox."""
        return self._open().commands

    @property
    def pty(self) -> Pty:
        """The terminals in the sandbox."""
        return self._open().pty

    @classmethod
    def create(
        cls,
        template: str | None = None,
        timeout: int | None = None,
        metadata: Mapping[str, str] | None = None,
        envs: Mapping[str, str] | None = None,
        api_key: str | None = None,
        domain: str | None = None,
        debug: bool | None = None,
        request_timeout: float | None = None,
        proxy: str | None = None,
        secure: bool | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[ConnectionOptions],
    ) -> Self:
        """Make a sandbox.

        Args:
            template: Name or id of the template; `default_template` when left out.
            timeout: Lifetime in seconds; the service's default, 300, when left out.
            metadata: Texts to find the sandbox by.
            envs: Environment variables of every command in it.
            api_key: API key; E2B_API_KEY when left out.
            domain: Domain of the service; E2B_DOMAIN, or "e2b.app". "local" is a server of this machine's
                own.
            debug: Use services on localhost, as E2B's developers run them, without a control plane.
            request_timeout: Timeout for the request in seconds, and the default for the sandbox's own; 60
                when left out, 0 for no limit.
            proxy: URL of the proxy for all requests, the sandbox's own included.
            secure: Accepted and not needed: sandboxes are always secured with an access token.
            headers: Headers to add to requests to the control plane.
            idempotency_key: Name of this creation, 1 to 255 of a-z, 0-9 and "-": creating again with the same
                gives the same sandbox. One is made up when left out, so that no retry makes a second sandbox.
            **options: See `ConnectionOptions`.

        Returns:
            The sandbox, which runs.

        Raises:
            AuthenticationException: The API key is missing or wrong.
            InvalidArgumentException: An argument was refused.
            TemplateException: The template is too old for this SDK.
            RateLimitException: The account has as many sandboxes as it may.
            SandboxException: The sandbox could not be made.
        """
        config = configure(api_key, domain, debug, request_timeout, headers, proxy, options)
        access = lifecycle.create(
            config,
            template=template or cls.default_template,
            timeout=timeout,
            metadata=metadata,
            envs=envs,
            idempotency_key=idempotency_key,
        )
        try:
            return cls(config, access.sandbox_id, _Inside.reached_with(config, access))
        except BaseException:
            lifecycle.discard(config, access.sandbox_id)
            raise

    @classmethod
    def _connect_by_id(
        cls,
        sandbox_id: str,
        api_key: str | None = None,
        domain: str | None = None,
        debug: bool | None = None,
        proxy: str | None = None,
        *,
        timeout: int | None = None,
        request_timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Unpack[ConnectionOptions],
    ) -> Self:
        """Attach to a sandbox; one that is paused is resumed.

        Args:
            sandbox_id: Id of the sandbox.
            api_key: As for `create`.
            domain: As for `create`.
            debug: As for `create`.
            proxy: As for `create`.
            timeout: Seconds that the sandbox has to live at least; the service's default when left out. The
                life of one that runs is never shortened.
            request_timeout: As for `create`.
            headers: As for `create`.
            **options: See `ConnectionOptions`.

        Returns:
            The sandbox.

        Raises:
            SandboxNotFoundException: There is no sandbox of that id.
            SandboxException: The request failed.
        """
        config = configure(api_key, domain, debug, request_timeout, headers, proxy, options)
        access = lifecycle.connect(config, sandbox_id, timeout=timeout)
        return cls(config, access.sandbox_id, _Inside.reached_with(config, access))

    @also_on_class_returning_self(_connect_by_id)
    def connect(self, timeout: int | None = None, *, request_timeout: float | None = None) -> Self:
        """Resume the sandbox if it is paused, and see to it that it has some time to live.

        Args:
            timeout: Seconds that it has to live at least; the service's default when left out. The life of a
                sandbox that runs is never shortened.
            request_timeout: Timeout for the request in seconds.

        Returns:
            This sandbox.

        Raises:
            SandboxNotFoundException: It does not exist any more.
            SandboxException: The request failed.
        """
        lifecycle.connect(self._config, self._sandbox_id, timeout=timeout, request_timeout=request_timeout)
        return self

    @also_on_class(by_id.kill)
    def kill(self, request_timeout: float | None = None) -> bool:
        """Kill the sandbox.

        Args:
            request_timeout: Timeout for the request in seconds.

        Returns:
            True if it was killed, False if it did not exist any more.

        Raises:
            SandboxException: Whether it was killed is not known.
        """
        return lifecycle.kill(self._config, self._sandbox_id, request_timeout)

    @also_on_class(by_id.set_timeout)
    def set_timeout(self, timeout: int, request_timeout: float | None = None) -> None:
        """Set the time that the sandbox has left to live, which may be longer or shorter than before.

        Args:
            timeout: Seconds from now.
            request_timeout: Timeout for the request in seconds.

        Raises:
            SandboxNotFoundException: It does not exist any more.
            SandboxException: The request failed.
        """
        lifecycle.set_timeout(self._config, self._sandbox_id, timeout, request_timeout)

    @also_on_class(by_id.get_info)
    def get_info(self, request_timeout: float | None = None) -> SandboxInfo:
        """What the service knows of the sandbox.

        Args:
            request_timeout: Timeout for the request in seconds.

        Raises:
            SandboxNotFoundException: It does not exist any more.
            SandboxException: The request failed.
        """
        return lifecycle.get_info(self._config, self._sandbox_id, request_timeout)

    def is_running(self, request_timeout: float | None = None) -> bool:
        """Whether the sandbox runs, asked of the sandbox itself.

        Args:
            request_timeout: Timeout for the request in seconds.

        Returns:
            True if it answers; False if the service says that it is not there, or not running.

        Raises:
            SandboxException: Neither can be said, because the sandbox or the service could not be reached.
        """
        try:
            return self._open().envd.is_healthy(request_timeout)
        except SandboxNotFoundException:
            return False

    @classmethod
    def list(
        cls,
        api_key: str | None = None,
        query: SandboxQuery | None = None,
        domain: str | None = None,
        debug: bool | None = None,
        request_timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        *,
        limit: int | None = None,
        next_token: str | None = None,
        order: lifecycle.Order | None = None,
        **options: Unpack[ConnectionOptions],
    ) -> Listing[SandboxInfo]:
        """The sandboxes of the account: those that run, unless `query` asks for other states.

        Args:
            api_key: As for `create`.
            query: Which sandboxes to list, for example `SandboxQuery(metadata={"key": "value"})`.
            domain: As for `create`.
            debug: As for `create`.
            request_timeout: Timeout for each request in seconds.
            headers: As for `create`.
            proxy: As for `create`.
            limit: Number of sandboxes to a page, 1 to 100.
            next_token: Where to start: the `next_token` of an earlier listing.
            order: "desc" begins with the sandbox that started last, "asc" with the first; "desc" by default.
            **options: See `ConnectionOptions`.

        Returns:
            A sequence whose pages are fetched when they are needed.

        Raises:
            InvalidArgumentException: An argument was refused.
            SandboxException: From the sequence: a page could not be fetched.
        """
        config = configure(api_key, domain, debug, request_timeout, headers, proxy, options)
        return Listing(lifecycle.pages(config, query or SandboxQuery(), limit, order), next_token)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.kill()
        else:
            lifecycle.discard(self._config, self._sandbox_id)

    def __repr__(self) -> str:
        service = urlsplit(self._config.api_url).netloc.rpartition("@")[2]
        return f"<{type(self).__name__} {self._sandbox_id} of {service}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._config, self._sandbox_id)

    def _open(self) -> _Inside:
        """The way in; a copy that was unpickled asks the service for it first."""
        if self._inside is None:
            access = lifecycle.get_access(self._config, self._sandbox_id)
            self._inside = _Inside.reached_with(self._config, access)
        return self._inside
