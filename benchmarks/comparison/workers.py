"""Both ends of the servers and sides that a run consists of, each in a process of its own."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from sides.place import Place, Sizes
from sides.usage import Sample

from sandbox_local import LocalServer

_ROOT = Path(__file__).resolve().parent.parent

# Seconds after which a side that says nothing is taken to hang.
_PATIENCE = 120


class SideFailed(Exception):
    """A side could not do what it was told."""


class Worker:
    """The process of a side. Use it in a `with` block."""

    def __init__(self, side: str, place: Place, sizes: Sizes) -> None:
        self._side = side
        told = {"side": side, "place": asdict(place), "sizes": sizes.as_json()}
        self._process = start("sides.worker")
        self._write(told)

    def __enter__(self) -> Worker:
        self._read()  # it is ready
        return self

    def __exit__(self, *_: object) -> None:
        stop(self._process)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def do(self, action: str, times: int = 1, sizes: Sizes | None = None) -> Sample:
        """Let the side do something so many times.

        Raises:
            SideFailed: It did not.
        """
        request: dict[str, Any] = {"action": action, "times": times}
        if sizes is not None:
            request["sizes"] = sizes.as_json()
        self._write(request)
        return cast("Sample", self._answer(action))

    def functions(self, action: str, times: int) -> list[tuple[str, float]]:
        """Let the side do something so many times; see `sides.functions`."""
        self._write({"action": action, "times": times, "profile": True})
        found: list[tuple[str, float]] = self._answer(action)["functions"]
        return found

    def _answer(self, action: str) -> dict[str, Any]:
        answer = self._read()
        if "error" in answer:
            raise SideFailed(f"{self._side}, {action}:\n{answer['error']}")
        return answer

    def _write(self, value: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(value) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SideFailed(f"{self._side} has ended") from None

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _PATIENCE)
        if not ready:
            self._process.kill()
            raise SideFailed(f"{self._side} was not done after {_PATIENCE} s")
        line = self._process.stdout.readline()
        if not line:
            raise SideFailed(f"{self._side} has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def servers(sizes: Sizes) -> Iterator[Place]:
    """The embedded server, and the stand-in that sends small events."""
    with LocalServer(sandboxes=2000) as server:
        standin = start("sides.standin", str(sizes.events))
        try:
            assert standin.stdout is not None
            port = int(standin.stdout.readline())
            yield Place(server.url, server.api_key, f"http://127.0.0.1:{port}")
        finally:
            stop(standin)


@contextmanager
def workers(names: list[str], place: Place, sizes: Sizes) -> Iterator[dict[str, Worker]]:
    """One process for each of the sides."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(Worker(name, place, sizes)) for name in names}


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    """Run a module of the benchmarks, with pipes to it and from it."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
    )


def stop(process: subprocess.Popen[str]) -> None:
    """End it by the end of its input, or else by force."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.close()
    except BrokenPipeError:
        pass
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
