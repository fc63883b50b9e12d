"""A real forward proxy in a process of its own: proxy.py, with a plugin that tells what it was asked for.

Names under .test exist for this proxy alone, which finds them on this machine. So a request that reaches such
a name went through the proxy, and no machine needs an address other than loopback for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from proxy.http.parser import HttpParser
from proxy.http.proxy import HttpProxyBasePlugin

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 20.0
NAME = "sandbox.test"
"""A name that the proxy finds on this machine, and nobody else anywhere."""

_DIARY = "TEST_PROXY_DIARY"


class Plugin(HttpProxyBasePlugin):
    """Runs in the proxy's process."""

    def resolve_dns(self, host: str, port: int) -> tuple[str | None, None]:
        """Where to connect to."""
        return ("127.0.0.1" if host.endswith(".test") else None), None

    def handle_client_request(self, request: HttpParser) -> HttpParser:
        """Note what was asked for, and let it pass."""
        method, host = (request.method or b"").decode(), (request.host or b"").decode()
        names = b",".join(sorted(name.lower() for name in request.headers or {})).decode()
        with open(os.environ[_DIARY], "a") as diary:
            diary.write(f"{method} {host}:{request.port} {names}\n")
        return request


@dataclass(frozen=True)
class Asked:
    """One request to the proxy."""

    method: str
    authority: str
    headers: frozenset[str]


@dataclass(frozen=True)
class RunningProxy:
    """A proxy that runs. `url` holds the user and password that it asks for, if it does."""

    port: int
    url: str
    _diary: Path

    def asked(self) -> list[Asked]:
        """What it was asked for and did, so far."""
        if not self._diary.exists():
            return []
        entries = (line.split(" ") for line in self._diary.read_text().splitlines())
        return [Asked(method, authority, frozenset(names.split(","))) for method, authority, names in entries]


@contextmanager
def a_proxy(directory: Path, user: str | None = None, password: str = "") -> Iterator[RunningProxy]:
    """Run a proxy; it asks for a user and password if they are given."""
    port_file, diary = directory / "proxy.port", directory / "proxy.diary"
    for file in (port_file, diary):
        file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "proxy", "--hostname", "127.0.0.1", "--port", "0"]
    command += ["--port-file", str(port_file), "--num-workers", "1", "--num-acceptors", "1"]
    command += ["--timeout", "600", "--plugins", f"{__name__}.Plugin", "--log-level", "WARNING"]
    command += [] if user is None else ["--basic-auth", f"{user}:{password}"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, _DIARY: str(diary), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        port = _port(process, port_file)
        credentials = "" if user is None else f"{quote(user, safe='')}:{quote(password, safe='')}@"
        yield RunningProxy(port, f"http://{credentials}127.0.0.1:{port}", diary)
    finally:
        process.terminate()
        try:
            process.communicate(timeout=START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _port(process: subprocess.Popen[str], file: Path) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return int(file.read_text().split()[0])
        except (OSError, IndexError, ValueError):
            time.sleep(0.02)
    process.kill()
    raise AssertionError(f"the proxy did not start; it said: {process.communicate()[0]}")
