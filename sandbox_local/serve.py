"""The life of the server process: get ready, say so, serve, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import ipaddress
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from sandbox_local.app import App
from sandbox_local.config import Config
from sandbox_local.control.api import ControlPlane
from sandbox_local.control.registry import Registry, Sandbox, Service
from sandbox_local.control.templates import Catalog
from sandbox_local.egress.gateway import Egress
from sandbox_local.envd.service import Envd
from sandbox_local.http import Server, listen
from sandbox_local.http.limits import Limits
from sandbox_local.isolation.errors import IsolationError
from sandbox_local.isolation.gvisor.runsc import Runsc
from sandbox_local.isolation.gvisor.runsc import find as find_runsc
from sandbox_local.isolation.namespaces import NamespaceBackend
from sandbox_local.plane import SandboxPlane
from sandbox_local.statefile import StateFile
from sandbox_local.templates.store import VARIABLE, Store, TemplateError, default_directory

log = logging.getLogger(__name__)

# What requests have when the server is told to stop, and what it has itself: less than LocalServer waits
# before it kills.
_GRACE_SECONDS = 1.0
_STOP_SECONDS = 8.0

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def serve(config: Config, on_ready: Callable[[str], None]) -> None:
    """Serve until a signal, the lifeline or idleness ends it; everything is gone when it returns.

    Args:
        config: How.
        on_ready: Called with the server's URL once it answers requests.

    Raises:
        IsolationError: This machine does not allow sandboxes.
        StateFileHeld: Another server has the state file.
        TemplateError: Templates can't be kept where they were to be.
        OSError: The address can't be had, or the state file can't be written.
    """
    told = _told_to_stop(config.lifeline)
    serving = asyncio.get_running_loop().create_task(_serve(config, on_ready))
    await asyncio.wait({serving, told}, return_when=asyncio.FIRST_COMPLETED)
    if told.done():
        serving.cancel()
        await asyncio.wait({serving}, timeout=_STOP_SECONDS)
        if not serving.done():
            log.error("not everything ended in %g s; it ends with the server now", _STOP_SECONDS)
            os._exit(1)
    if not serving.cancelled():
        serving.result()


async def _serve(config: Config, on_ready: Callable[[str], None]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        listener = stack.enter_context(_bind(config.host, config.port))
        host, port = listener.getsockname()[:2]
        address = ipaddress.ip_address(host)
        if not address.is_loopback:
            log.warning(
                "listening on %s: other machines can reach this server, and whoever has its API key can run "
                "programs on this one; its sandboxes are not meant for hostile code of strangers",
                host,
            )
        runsc = _runsc(config)
        store = _open_store(config.templates)
        backend = NamespaceBackend(templates=str(store.path) if store else None, runsc=runsc)
        stack.push_async_callback(backend.close)
        await backend.start()
        backend.check(config.limits)
        descriptors = _allow_many_descriptors()
        egress = Egress(port) if config.internet else None
        if egress is not None:
            await egress.prove(backend)
        registry = Registry(backend, config.sandboxes, config.limits, egress)
        # Names under "localhost" lead to this machine, so PORT-ID.localhost reaches a sandbox's port from it.
        domain = f"localhost:{port}" if address.is_loopback else None
        control = ControlPlane(registry, config.api_key, domain, Catalog(store))
        app = App(control, SandboxPlane(registry, _make_envd))
        # Connections leave half of the descriptors to the sandboxes, and are told when there are too many.
        limits = Limits(connections=min(Limits.connections, descriptors // 2))
        server = await listen(app.handle, sockets=[listener], limits=limits)
        stack.push_async_callback(_close, server, registry)
        url = _url(address, port)
        if config.state_file is not None:
            # Removed before anything else, so that who finds no server there can start the next one.
            state = {"url": url, "api_key": config.api_key, "pid": os.getpid(), "version": version()}
            stack.callback(StateFile.write(config.state_file, state).remove)
        on_ready(url)
        await _until_idle(config.idle_exit, app, registry)


def _runsc(config: Config) -> Runsc | None:
    """gVisor's program, if it was asked for.

    Raises:
        IsolationError: It is missing, or can't do what else was asked for.
    """
    if config.isolation != "gvisor":
        return None
    if config.internet:
        raise IsolationError(
            "sandboxes with gVisor have no internet. Remedy: do without --internet, or without gVisor"
        )
    return find_runsc()


def version() -> str:
    """The version of this distribution."""
    return importlib.metadata.version("sandbox-sync")


def _told_to_stop(lifeline: int | None) -> asyncio.Future[None]:
    """Resolves at the first signal, or when the lifeline ends."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()

    def stop() -> None:
        if not told.done():
            told.set_result(None)

    def read(descriptor: int) -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            stop()

    for signum in _SIGNALS:
        # Ignored from the start it is under nohup, or in the background of a shell: so it is meant to be.
        if signal.getsignal(signum) is not signal.SIG_IGN:
            loop.add_signal_handler(signum, stop)
    if lifeline is not None:
        loop.add_reader(lifeline, read, lifeline)
    return told


async def _close(server: Server, registry: Registry) -> None:
    # At once: streams out of a sandbox end when it does, and no new sandbox can be asked for any more.
    await asyncio.gather(server.close(_GRACE_SECONDS), registry.close())


async def _until_idle(seconds: float | None, app: App, registry: Registry) -> None:
    """Return when for so long no sandbox lived and no request came; never, if `seconds` is None."""
    loop = asyncio.get_running_loop()
    if seconds is None:
        await loop.create_future()
        return
    while True:
        idle_since = loop.time() if len(registry) else max(app.last_request, registry.last_end)
        left = idle_since + seconds - loop.time()
        if left <= 0:
            return
        await asyncio.sleep(left)


def _open_store(path: Path | None) -> Store | None:
    if path is None:
        return None
    store = Store(path.absolute())
    try:
        store.make()
    except TemplateError as error:
        if path != default_directory({**os.environ, VARIABLE: ""}):
            raise
        log.warning("there is no template but 'base': %s", error)  # a user whose home can't be written, say
        return None
    return store


def _make_envd(sandbox: Sandbox) -> Service:
    return Envd(
        sandbox.box,
        sandbox.limits,
        sandbox.sandbox_id,
        sandbox.plan.template.template_id,
        sandbox.plan.env_vars,
        sandbox.envd_access_token,
        "user",
    )


def _bind(host: str, port: int) -> socket.socket:
    with contextlib.ExitStack() as unless_bound:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, _, _, address = found[0]
            listener = unless_bound.enter_context(socket.socket(family, kind))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError as error:
            raise OSError(f"can't listen on {host} port {port}: {error.strerror}") from None
        unless_bound.pop_all()
    return listener


def _url(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> str:
    """The URL for clients on this machine."""
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://{address}:{port}" if address.version == 4 else f"http://[{address}]:{port}"


def _allow_many_descriptors() -> int:
    """A sandbox takes a few and a stream takes one, so the usual soft limit of 1024 is soon reached.

    Returns:
        How many there may be.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most
