"""`Sandbox`: make isolated environments and find them again, run commands in them, move files, end them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import datetime
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sandbox_sync import by_id
from sandbox_sync import lease as leases
from sandbox_sync._class_or_instance import (
    also_on_class,
    also_on_class_returning_self,
    also_on_class_returning_selves,
)
from sandbox_sync._later import later
from sandbox_sync.access import Access
from sandbox_sync.ambient import cleaning_up
from sandbox_sync.by_id import configure
from sandbox_sync.config import ENVD_PORT, ConnectionConfig
from sandbox_sync.errors import (
    InvalidArgumentException,
    PortNotOpenException,
    SandboxException,
    SandboxNotFoundException,
)
from sandbox_sync.listing import Listing
from sandbox_sync.models.connection import ConnectionOptions
from sandbox_sync.options import (
    ApiParams,
    SandboxLifecycle,
    SandboxNetworkOpts,
    SandboxNetworkUpdate,
    SavedState,
)

if TYPE_CHECKING:
    import builtins

    from typing_extensions import Self, Unpack

    from sandbox_sync import inside as insides
    from sandbox_sync import lifecycle as control
    from sandbox_sync import queries, signatures
    from sandbox_sync.commands import Commands
    from sandbox_sync.filesystem import Filesystem
    from sandbox_sync.models import sandboxes
    from sandbox_sync.models.sandboxes import SandboxInfo, SandboxMetrics, SandboxQuery, SnapshotInfo
    from sandbox_sync.pty import Pty
else:
    control = later("sandbox_sync.lifecycle")
    insides = later("sandbox_sync.inside")
    queries = later("sandbox_sync.queries")
    sandboxes = later("sandbox_sync.models.sandboxes")
    signatures = later("sandbox_sync.signatures")


class Sandbox:
    """An isolated Linux environment. Make one with `Sandbox.create()`, or attach with `Sandbox.connect(id)`.

    A sandbox may be used from any thread and in forked processes. It pickles: the copy attaches to the same
    sandbox when it is first used, with the API key of the environment that it is then in. Leaving a `with`
    block kills the sandbox, in the process that entered it: a child that was forked inside, and leaves it
    too, kills nothing unless it calls `kill`.

    Some methods exist twice under one name: `sandbox.kill()` is for a sandbox at hand, `Sandbox.kill(id)` for
    one whose id is known, and takes the options of a connection as well. Below are those that take an id;
    help(sandbox.kill) tells of the other.

    Example:
        >>> with Sandbox.create() as sandbox:
        ...     sandbox.files.write("hello.txt", "hello")
        ...     print(sandbox.commands.run("cat hello.txt").stdout)
    """

    default_template = "base"
    """The template of `create()` when none is named; for subclasses to change."""

    def __new__(cls, *arguments: Any, **_options: Any) -> Self:
        if not (arguments and isinstance(arguments[0], ConnectionConfig)):
            raise InvalidArgumentException(
                f"{cls.__name__}(...) makes no sandbox. Use {cls.__name__}.create() to make one, or "
                f"{cls.__name__}.connect(sandbox_id) to attach to one that there is"
            )
        return super().__new__(cls)

    def __init__(
        self, config: ConnectionConfig, sandbox_id: str, inside: insides.Inside | None = None
    ) -> None:
        """Use `Sandbox.create()` or `Sandbox.connect()` instead."""
        self._config = config
        self._sandbox_id = sandbox_id
        self._inside = inside
        self._lease: leases.Lease | None = None
        self._owner = os.getpid()

    @property
    def sandbox_id(self) -> str:
        """Unique id of the sandbox.

        Specified in: Sandbox, sandbox_id
        """
        return self._sandbox_id

    @property
    def files(self) -> Filesystem:
        """The files in the sandbox.

        Specified in: Sandbox, files
        """
        return self._open().files

    @property
    def commands(self) -> Commands:
        """The commands in the sandbox.

        Specified in: Sandbox, commands
        """
        return self._open().commands

    @property
    def pty(self) -> Pty:
        """The terminals in the sandbox.

        Specified in: Sandbox, pty
        """
        return self._open().pty

    @property
    def connection_config(self) -> ConnectionConfig:
        """How the service is reached, and who calls. Its repr shows no secrets."""
        return self._config

    @property
    def sandbox_domain(self) -> str:
        """Domain under which the ports of the sandbox are reached."""
        return self._open().access.domain or self._config.domain

    @property
    def traffic_access_token(self) -> str | None:
        """What requests to ports of the sandbox have to carry in the header e2b-traffic-access-token.

        None if they need nothing. The service tells it only to who creates the sandbox or connects to it, so
        it is None in a copy that was unpickled, until `connect()` is called.
        """
        return self._open().access.traffic_token

    @classmethod
    def create(
        cls,
        template: str | None = None,
        timeout: int | None = None,
        metadata: Mapping[str, str] | None = None,
        envs: Mapping[str, str] | None = None,
        api_key: str | bool | None = None,
        domain: str | None = None,
        debug: bool | None = None,
        request_timeout: float | None = None,
        proxy: str | None = None,
        secure: bool | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        allow_internet_access: bool | None = None,
        network: SandboxNetworkOpts | None = None,
        lifecycle: SandboxLifecycle | None = None,
        idempotency_key: str | None = None,
        lease: int | None = None,
        **options: Unpack[ConnectionOptions],
    ) -> Self:
        """Make a sandbox.

        Args:
            template: Name or id of the template; `default_template` when left out.
            timeout: Lifetime in seconds; the service's default, 300, when left out.
            metadata: Texts to find the sandbox by.
            envs: Environment variables of every command in it.
            api_key: API key; E2B_API_KEY when left out. True and False stand for `secure`, which newer
                programs have in this place.
            domain: Domain of the service; E2B_DOMAIN, or "e2b.app". "local" is a server of this machine's
                own.
            debug: Use services on localhost, as E2B's developers run them, without a control plane.
            request_timeout: Timeout for the request in seconds, and the default for the sandbox's own; 60
                when left out, 0 for no limit.
            proxy: URL of the proxy for all requests, the sandbox's own included.
            secure: Accepted and not needed: sandboxes are always secured with an access token.
            headers: Headers to add to requests to the control plane.
            allow_internet_access: Whether it may reach the internet; the service's default when left out.
            network: What may go in and out of it.
            lifecycle: What happens when its lifetime ends; it is killed when left out.
            idempotency_key: Name of this creation, 1 to 255 of a-z, 0-9 and "-": creating again with the same
                gives the same sandbox. One is made up when left out, so that no retry makes a second sandbox.
            lease: Lifetime in seconds, 3 or more, that a thread renews for as long as this process and this
                object, or its files, commands or terminals, are there: then the sandbox ends within that
                time. `kill`, `pause` and `set_timeout` end it. Forks and pickled copies do not renew it. Not
                together with `timeout`.
            **options: See `ConnectionOptions`.

        Returns:
            The sandbox, which runs.

        Raises:
            AuthenticationException: The API key is missing or wrong.
            InvalidArgumentException: An argument was refused.
            TemplateException: The template is too old for this SDK.
            RateLimitException: The account has as many sandboxes as it may.
            ConflictException: The `idempotency_key` was used for another sandbox.
            SandboxException: The sandbox could not be made, or the service cannot do what was asked.

        Specified in: Sandbox, create
        """
        if isinstance(api_key, bool):
            api_key = None
        lifetime = leases.lifetime(timeout, lease)
        config = configure(api_key, domain, debug, request_timeout, headers, proxy, options)
        began = time.monotonic()
        access = control.create(
            config,
            template=template or cls.default_template,
            timeout=lifetime,
            metadata=metadata,
            envs=envs,
            allow_internet_access=allow_internet_access,
            network=network,
            lifecycle=lifecycle,
            idempotency_key=idempotency_key,
        )
        try:
            made = cls(config, access.sandbox_id, insides.Inside.reached_with(config, access))
            if lease is not None:
                made._hold(lease, began)
            return made
        except BaseException:
            control.discard(config, access.sandbox_id)
            raise

    @classmethod
    def _connect_by_id(
        cls,
        sandbox_id: str,
        api_key: str | int | None = None,
        domain: str | None = None,
        debug: bool | None = None,
        proxy: str | None = None,
        *,
        timeout: int | None = None,
        on_resume: control.OnResume = "restore",
        request_timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        lease: int | None = None,
        **options: Unpack[ConnectionOptions],
    ) -> Self:
        """Attach to a sandbox; one that is paused is resumed.

        Args:
            sandbox_id: Id of the sandbox.
            api_key: As for `create`. A number stands for `timeout`, which newer programs have in this place.
            domain: As for `create`.
            debug: As for `create`.
            proxy: As for `create`.
            timeout: Seconds that the sandbox has to live at least; the service's default when left out. The
                life of one that runs is never shortened.
            on_resume: Whether a paused sandbox goes on where it was ("restore"), or starts anew from its
                files ("reboot").
            request_timeout: As for `create`.
            headers: As for `create`.
            lease: As for `create`: this process takes the sandbox over. A longer life that it had is cut
                to the lease at once. Whoever held a lease before has to end it.
            **options: See `ConnectionOptions`.

        Returns:
            The sandbox.

        Raises:
            SandboxNotFoundException: There is no sandbox of that id.
            GuestUnresponsiveException: It cannot go on where it was; `on_resume="reboot"` starts it anew.
            SandboxException: The request failed.

        Specified in: Sandbox, connect
        """
        if isinstance(api_key, int):
            api_key, timeout = None, api_key if timeout is None else timeout
        config = configure(api_key, domain, debug, request_timeout, headers, proxy, options)
        lifetime = leases.lifetime(timeout, lease)
        began = time.monotonic()
        access = control.connect(config, sandbox_id, timeout=lifetime, on_resume=on_resume)
        found = cls(config, access.sandbox_id, insides.Inside.reached_with(config, access))
        if lease is not None:
            found._hold(lease, began, now=True)
        return found

    @also_on_class_returning_self(_connect_by_id)
    def connect(
        self,
        timeout: int | None = None,
        *,
        on_resume: control.OnResume = "restore",
        request_timeout: float | None = None,
    ) -> Self:
        """Resume the sandbox if it is paused, and see to it that it has some time to live.

        Args:
            timeout: Seconds that it has to live at least; the service's default when left out. The life of a
                sandbox that runs is never shortened.
            on_resume: Whether a paused sandbox goes on where it was ("restore"), or starts anew from its
                files ("reboot").
            request_timeout: Timeout for the request in seconds.

        Returns:
            This sandbox.

        Raises:
            SandboxNotFoundException: It does not exist any more.
            GuestUnresponsiveException: It cannot go on where it was; `on_resume="reboot"` starts it anew.
            SandboxException: The request failed.
        """
        access = control.connect(
            self._config,
            self._sandbox_id,
            timeout=timeout,
            on_resume=on_resume,
            request_timeout=request_timeout,
        )
        if self._inside is None or self._inside.access != access:
            self._inside = insides.Inside.reached_with(self._config, access)
            self._inside.envd.lease = self._lease
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

        Specified in: Sandbox, kill
        """
        self._end_lease()
        return control.kill(self._config, self._sandbox_id, request_timeout)

    @also_on_class(by_id.set_timeout)
    def set_timeout(self, timeout: int, request_timeout: float | None = None) -> None:
        """Set the time that the sandbox has left to live, which may be longer or shorter than before.

        A lease ends with it, unless it fails: so a leased sandbox is handed to another process.

        Args:
            timeout: Seconds from now.
            request_timeout: Timeout for the request in seconds.

        Raises:
            SandboxNotFoundException: It does not exist any more.
            SandboxException: The request failed.

        Specified in: Sandbox, set_timeout
        """
        lease = self._end_lease()
        try:
            control.set_timeout(self._config, self._sandbox_id, timeout, request_timeout)
        except BaseException:
            if lease is not None:
                self._hold(lease.seconds, time.monotonic(), now=True)
            raise

    @also_on_class(by_id.get_info)
    def get_info(self, request_timeout: float | None = None) -> SandboxInfo:
        """What the service knows of the sandbox.

        Args:
            request_timeout: Timeout for the request in seconds.

        Raises:
            SandboxNotFoundException: It does not exist any more.
            SandboxException: The request failed.

        Specified in: Sandbox, get_info
        """
        return queries.get_info(self._config, self._sandbox_id, request_timeout)

    def is_running(self, request_timeout: float | None = None) -> bool:
        """Whether the sandbox runs, asked of the sandbox itself.

        One that was paused with `auto_resume` is resumed by the question, as by any request.

        Args:
            request_timeout: Timeout for the request in seconds.

        Returns:
            True if it answers, or if the service says that it runs and only its agent does not listen. False
            if the service says that it is not there, or paused.

        Raises:
            SandboxException: Neither can be said, because the sandbox or the service could not be reached.

        Specified in: Sandbox, is_running
        """
        try:
            return self._open().envd.is_healthy(request_timeout)
        except PortNotOpenException:
            return True
        except SandboxNotFoundException:
            return False

    @also_on_class(by_id.pause)
    def pause(
        self, *, mode: SavedState | None = None, strict: bool = False, request_timeout: float | None = None
    ) -> bool:
        """Save the sandbox and stop it. `connect()` lets it go on.

        Args:
            mode: What is saved: "full", its memory and its files, or "filesystem", its files alone; the
                service's default, "full", when left out.
            strict: Whether to refuse when the agent inside the sandbox does not answer.
            request_timeout: Timeout for the request in seconds.

        Returns:
            True if it is paused now, False if it was paused already.

        Raises:
            SandboxNotFoundException: It does not exist any more.
            GuestUnresponsiveException: The agent inside it does not answer.
            ConflictException: It is in a state in which it cannot be paused.
            SandboxException: Whether it was paused is not known.
        """
        paused = control.pause(
            self._config, self._sandbox_id, mode=mode, strict=strict, request_timeout=request_timeout
        )
        self._end_lease()
        return paused

    @also_on_class(by_id.get_metrics)
    def get_metrics(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        request_timeout: float | None = None,
    ) -> builtins.list[SandboxMetrics]:
        """What the sandbox has used of its CPUs, memory and disk.

        Args:
            start: Time of the first measurement wanted; the start of the sandbox when left out.
            end: Time of the last one; now when left out.
            request_timeout: Timeout for the request in seconds.

        Returns:
            The measurements, oldest first. There may be none in the first seconds, or while it is paused.

        Raises:
            SandboxNotFoundException: It does not exist any more.
            InvalidArgumentException: A time is without a time zone.
            SandboxException: The request failed.
        """
        return queries.get_metrics(self._config, self._sandbox_id, start, end, request_timeout)

    @also_on_class(by_id.update_network)
    def update_network(self, network: SandboxNetworkUpdate, *, request_timeout: float | None = None) -> None:
        """Replace all rules of what may go out of the sandbox.

        Args:
            network: The new rules. What it leaves out is cleared, not kept.
            request_timeout: Timeout for the request in seconds.

        Raises:
            SandboxNotFoundException: It does not exist any more.
            ConflictException: It does not run.
            InvalidArgumentException: A rule was refused.
            SandboxException: The request failed, or the service cannot do it.
        """
        control.update_network(self._config, self._sandbox_id, network, request_timeout)

    @also_on_class(by_id.create_snapshot)
    def create_snapshot(
        self,
        name: str | None = None,
        *,
        mode: SavedState | None = None,
        request_timeout: float | None = None,
    ) -> SnapshotInfo:
        """Save the sandbox, which runs on. `Sandbox.create(snapshot_id)` makes some that start from there.

        Args:
            name: Name for the snapshot; the latest of a name is the one that the name stands for.
            mode: As for `pause`.
            request_timeout: Timeout for the request in seconds.

        Returns:
            The snapshot.

        Raises:
            SandboxNotFoundException: It does not exist any more.
            SandboxException: The request failed, or the service cannot do it.
        """
        return control.create_snapshot(
            self._config, self._sandbox_id, name, mode=mode, request_timeout=request_timeout
        )

    @also_on_class(by_id.list_snapshots)
    def list_snapshots(
        self, *, limit: int | None = None, next_token: str | None = None, name: str | None = None
    ) -> Listing[SnapshotInfo]:
        """The snapshots of the sandbox.

        Args:
            limit: Number of snapshots to a page, 1 to 100.
            next_token: Where to start: the `next_token` of an earlier listing.
            name: List those of this name only.

        Returns:
            A sequence whose pages are fetched when they are needed.

        Raises:
            SandboxException: From the sequence: a page could not be fetched.
        """
        return Listing(queries.snapshots(self._config, self._sandbox_id, name, limit), next_token)

    @classmethod
    def _fork_by_id(
        cls,
        sandbox_id: str,
        timeout: int | None = None,
        count: int | None = None,
        **options: Unpack[ApiParams],
    ) -> builtins.list[Self | SandboxException]:
        """Make copies of a sandbox that runs, which goes on running.

        Args:
            sandbox_id: Id of the sandbox.
            timeout: Lifetime of each copy in seconds; the service's default when left out.
            count: Number of copies, 1 to 20; 1 when left out.
            **options: See `ApiParams`.

        Returns:
            The copies. In place of one that could not be made is the error that tells why.

        Raises:
            SandboxNotFoundException: There is no sandbox of that id.
            InvalidArgumentException: An argument was refused.
            SandboxException: None could be made, or the service cannot do it.
        """
        config = ConnectionConfig.resolve(**options)
        return cls._of_forks(config, control.fork(config, sandbox_id, timeout=timeout, count=count))

    @also_on_class_returning_selves(_fork_by_id)
    def fork(
        self, timeout: int | None = None, count: int | None = None, *, request_timeout: float | None = None
    ) -> builtins.list[Self | SandboxException]:
        """Make copies of the sandbox, which goes on running.

        Args:
            timeout: Lifetime of each copy in seconds; the service's default when left out.
            count: Number of copies, 1 to 20; 1 when left out.
            request_timeout: Timeout for the request in seconds.

        Returns:
            The copies. In place of one that could not be made is the error that tells why.

        Raises:
            SandboxNotFoundException: It does not exist any more.
            InvalidArgumentException: An argument was refused.
            SandboxException: None could be made, or the service cannot do it.
        """
        forks = control.fork(
            self._config, self._sandbox_id, timeout=timeout, count=count, request_timeout=request_timeout
        )
        return self._of_forks(self._config, forks)

    def get_host(self, port: int) -> str:
        """Host name, and port if it has one, under which a port of the sandbox is reached from outside.

        Args:
            port: The port inside it, 1 to 65535.

        Raises:
            InvalidArgumentException: The port cannot be one.
        """
        return self._config.get_host(self._sandbox_id, port, self._open().access.domain)

    def download_url(
        self,
        path: str | PathLike[str],
        user: str | None = None,
        use_signature_expiration: int | None = None,
    ) -> str:
        """A link that downloads a file of the sandbox, for programs that have neither key nor token.

        Args:
            path: The file. A relative path starts in the home directory of the user.
            user: The user; the sandbox's default user when left out.
            use_signature_expiration: Seconds for which the link is good; as long as the sandbox lives when
                left out.

        Raises:
            InvalidArgumentException: An argument cannot be used, or the sandbox has no access token, so that
            no link can expire.
        """
        return self._link("read", path, user, use_signature_expiration)

    def upload_url(
        self,
        path: str | PathLike[str] | None = None,
        user: str | None = None,
        use_signature_expiration: int | None = None,
    ) -> str:
        """A link to which a file of the sandbox can be uploaded with POST.

        What is posted is a form (multipart/form-data) whose part `file` is the content; or, where the link
        has a path, the content itself (application/octet-stream).

        Args:
            path: Where it is written; when left out, the file names in the form say it.
            user: As for `download_url`.
            use_signature_expiration: As for `download_url`.

        Raises:
            InvalidArgumentException: As for `download_url`.
        """
        return self._link("write", path, user, use_signature_expiration)

    @classmethod
    def list(
        cls,
        api_key: str | SandboxQuery | None = None,
        query: SandboxQuery | None = None,
        domain: str | None = None,
        debug: bool | None = None,
        request_timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        *,
        limit: int | None = None,
        next_token: str | None = None,
        order: queries.Order | None = None,
        **options: Unpack[ConnectionOptions],
    ) -> Listing[SandboxInfo]:
        """The sandboxes of the account: those that run, unless `query` asks for other states.

        Args:
            api_key: As for `create`. A `SandboxQuery` stands for `query`, which newer programs have in this
                place.
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

        Specified in: SandboxApi, list
        """
        if isinstance(api_key, sandboxes.SandboxQuery):
            api_key, query = None, api_key
        config = configure(api_key, domain, debug, request_timeout, headers, proxy, options)
        return Listing(queries.sandboxes(config, query or sandboxes.SandboxQuery(), limit, order), next_token)

    def __enter__(self) -> Self:
        self._owner = os.getpid()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._owner != os.getpid():  # a fork, whose parent goes on in the block
            return
        if error is None:
            with cleaning_up():
                self.kill()
        else:
            self._end_lease()
            control.discard(self._config, self._sandbox_id)

    def __repr__(self) -> str:
        service = urlsplit(self._config.api_url).netloc.rpartition("@")[2]
        return f"<{type(self).__name__} {self._sandbox_id} of {service}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._config, self._sandbox_id)

    @classmethod
    def _of_forks(
        cls, config: ConnectionConfig, forks: builtins.list[Access | SandboxException]
    ) -> builtins.list[Self | SandboxException]:
        return [
            one
            if isinstance(one, SandboxException)
            else cls(config, one.sandbox_id, insides.Inside.reached_with(config, one))
            for one in forks
        ]

    def _link(
        self,
        operation: signatures.Operation,
        path: str | PathLike[str] | None,
        user: str | None,
        expiration: int | None,
    ) -> str:
        access = self._open().access
        base, address = self._config.direct_envd_url(self._sandbox_id, access.domain), None
        if self._config.sandbox_url and (access.domain or "").partition(":")[0] == "localhost":
            # The embedded server. Not every resolver knows that names under .localhost are this machine's.
            base = self._config.sandbox_url
            address = {"e2b-sandbox-id": self._sandbox_id, "e2b-sandbox-port": str(ENVD_PORT)}
        return signatures.link(base, operation, path, user, access.token, expiration, address=address)

    def _hold(self, seconds: int, since: float, *, now: bool = False) -> None:
        """Renew the lifetime for as long as this, or anything that works through its connection, is there."""
        self._lease = leases.hold(self._config, self._sandbox_id, seconds, since, now=now)
        self._open().envd.lease = self._lease

    def _end_lease(self) -> leases.Lease | None:
        """Renew no more; the lease that there was, unless this is a fork, whose parent has it."""
        lease, self._lease = self._lease, None
        if lease is None or lease.pid != os.getpid():
            return None
        lease.end()
        return lease

    def _open(self) -> insides.Inside:
        """The way in; a copy that was unpickled asks the service for it first."""
        if self._inside is None:
            access = queries.get_access(self._config, self._sandbox_id)
            self._inside = insides.Inside.reached_with(self._config, access)
        return self._inside
