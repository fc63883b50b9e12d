"""The `logger` option, against real sandboxes on both wires."""

from __future__ import annotations

import logging
import pickle
import re
import subprocess
import sys

import pytest

from sandbox_sync import NotFoundException, Sandbox

LINE = re.compile(
    r"(?P<method>[A-Z]+) (?P<path>/\S*)( of sandbox (?P<sandbox>\w+))?: "
    r"(?P<end>.+) after (?P<seconds>\d+\.\d{3}) s \(attempt (?P<attempt>\d+)\)"
)


class Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.records]


def test_a_logger_is_told_of_every_call_and_of_nothing_that_calls_carry(
    server_env: dict[str, str], transport: str
) -> None:
    logger = logging.getLogger(f"a.program.{transport}")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    kept = Kept()
    logger.addHandler(kept)
    own = Kept()
    logging.getLogger("sandbox_sync").addHandler(own)
    try:
        with Sandbox.create(logger=logger, metadata={"a": "meta-secret"}) as sandbox:
            sandbox.commands.run("echo out-secret; cat hidden 2>&1; true", envs={"A": "env-secret"})
            sandbox.files.write("name-secret.txt", "content-secret")
            assert sandbox.files.read("name-secret.txt") == "content-secret"
            assert sandbox.files.exists("name-secret.txt")
            with pytest.raises(NotFoundException):
                sandbox.commands.connect(999_999)
            handle = sandbox.commands.run("sleep 100", background=True)
            handle.kill()
            token = sandbox._open().envd._token
            twin = pickle.loads(pickle.dumps(sandbox))
            assert twin.is_running()
            sandbox_id = sandbox.sandbox_id
    finally:
        logger.removeHandler(kept)
        logging.getLogger("sandbox_sync").removeHandler(own)
    assert own.records == [], "what a logger was given for goes there, and nowhere else"
    calls = [LINE.fullmatch(line) for line in kept.lines]
    assert all(calls), kept.lines
    assert all(record.levelno == logging.DEBUG for record in kept.records)
    seen = {(call["method"], call["path"], call["end"]) for call in calls if call is not None}
    assert {
        ("POST", "/v2/sandboxes", "HTTP 201"),
        ("POST", "/process.Process/Start", "ok"),
        ("POST", "/process.Process/Start", "stream over, ok"),
        ("POST", "/filesystem.Filesystem/Stat", "ok"),
        ("POST", "/files", "HTTP 200"),
        ("GET", "/files", "HTTP 200"),
        ("POST", "/process.Process/SendSignal", "ok"),
        ("GET", "/health", "HTTP 204"),
        ("DELETE", f"/sandboxes/{sandbox_id}", "HTTP 204"),
        ("GET", f"/sandboxes/{sandbox_id}", "HTTP 200"),
    } <= seen
    assert any(path.endswith("/Connect") and "not_found" in end for _, path, end in seen)
    assert {call["sandbox"] for call in calls if call is not None} == {sandbox_id, None}
    everything = "\n".join(kept.lines)
    for secret in ("secret", server_env["E2B_API_KEY"], token, "hidden"):
        assert str(secret) not in everything


def test_without_a_logger_nothing_is_printed(server_env: dict[str, str], transport: str) -> None:
    """No handler is installed, and what goes to the logger of the SDK is below what Python prints unasked."""
    program = """
import logging
from sandbox_sync import NotFoundException, Sandbox
with Sandbox.create() as sandbox:
    sandbox.commands.run("true")
    try:
        sandbox.files.read("missing")
    except NotFoundException:
        pass
names = [name for name in logging.root.manager.loggerDict if name.startswith("sandbox_sync")]
assert not logging.root.handlers and not any(logging.getLogger(name).handlers for name in names)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_logger_of_the_sdk_is_there_without_the_option(sandbox: Sandbox) -> None:
    logger = logging.getLogger("sandbox_sync")
    kept = Kept()
    logger.addHandler(kept)
    logger.setLevel(logging.DEBUG)
    try:
        sandbox.commands.list()
    finally:
        logger.setLevel(logging.NOTSET)
        logger.removeHandler(kept)
    assert [line.partition(" after ")[0] for line in kept.lines] == [
        f"POST /process.Process/List of sandbox {sandbox.sandbox_id}: ok"
    ]
