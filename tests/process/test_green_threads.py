"""Programs patched by gevent and eventlet, against the real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from sandbox_local import LocalServer

PATCH = {
    "gevent": """
from gevent import GreenletExit, Timeout, monkey, spawn
monkey.patch_all()
def result(job): return job.get(timeout=30)
""",
    "eventlet": """
import warnings
warnings.simplefilter("ignore")  # of its being deprecated
import eventlet
from eventlet import Timeout, spawn
from greenlet import GreenletExit
eventlet.monkey_patch()
def result(job): return job.wait()
""",
}

PROGRAM = """
import json, logging, sys, time
class Lines(logging.Handler):
    def emit(self, record): lines.append(record.getMessage())
lines = []
logging.getLogger("sandbox_sync").addHandler(Lines(logging.WARNING))

from sandbox_sync import Sandbox
transport = sys.argv[1]
seen = {}
with Sandbox.create(transport=transport) as sandbox:
    begin = time.monotonic()
    try:
        with Timeout(0.5):
            sandbox.commands.run("sleep 20")
    except Timeout:
        seen["timeout"] = time.monotonic() - begin - 0.5
    assert sandbox.commands.run("echo after").stdout == "after\\n"

    felt = []
    def blocked():
        try:
            sandbox.commands.run("sleep 20")
        except GreenletExit:
            felt.append(time.monotonic())
            raise
    job = spawn(blocked)
    time.sleep(0.5)
    begin = time.monotonic()
    job.kill()
    while not felt:
        assert time.monotonic() - begin < 5, "the kill was not felt"
        time.sleep(0.01)
    seen["kill"] = felt[0] - begin
    assert sandbox.commands.run("echo after").stdout == "after\\n"

    handle = sandbox.commands.run("echo one; sleep 0.3; echo two", background=True)
    others = [spawn(sandbox.commands.run, "echo meanwhile") for _ in range(5)]
    assert handle.wait().stdout == "one\\ntwo\\n"
    assert [result(other).stdout for other in others] == ["meanwhile\\n"] * 5
    with Sandbox.create(transport=transport) as second:
        assert second.commands.run("echo second").stdout == "second\\n"
seen["grpc"] = "grpc" in sys.modules
seen["lines"] = lines
print(json.dumps(seen))
"""


@pytest.mark.parametrize("transport", ["connect", "grpc", "auto"])
@pytest.mark.parametrize("library", PATCH)
def test_timeouts_and_kills_of_greenlets_are_felt(server: LocalServer, library: str, transport: str) -> None:
    """G37: timeouts and kills are felt while a call blocks, and eventlet never gets grpcio."""
    pytest.importorskip(library, reason=f"{library} is not installed", exc_type=ImportError)
    done = subprocess.run(
        [sys.executable, "-c", PATCH[library] + PROGRAM, transport],
        env={**os.environ, **server.env},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    print(library, transport, seen)  # noqa: T201  # the figures, for -rP
    assert seen["timeout"] < 0.5
    assert seen["kill"] < 0.5
    assert seen["grpc"] == (transport == "grpc" and library == "gevent")
    avoided = transport == "grpc" and library == "eventlet"
    assert len(seen["lines"]) == avoided, seen["lines"]
    assert not avoided or "eventlet" in seen["lines"][0]
