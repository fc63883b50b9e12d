"""What both SDKs are asked to do, by their common, documented names."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from sides.place import Place, Sizes
from sides.usage import Sample, resident, threads

MIB = 1 << 20

LISTED = {"is": "listed"}
"""Metadata of the sandboxes that are there to be listed."""

# Whoever has not opened the pipe yet would wait for ever if its last user closed it, so that waits for all.
_RELEASE = """exec 3<>gate
until [ "$(pgrep -xc head)" = {count} ]; do sleep 0.02; done
printf '%0{count}d' 0 >&3
while pgrep -x head >/dev/null; do sleep 0.02; done
"""


def fill(file: IO[bytes], length: int) -> None:
    """Give a file this length, of random bytes, and stand at its beginning."""
    have = file.seek(0, os.SEEK_END)
    while have < length:
        have += file.write(os.urandom(min(MIB, length - have)))
    file.truncate(length)
    file.flush()
    file.seek(0)


class Sdk:
    """An SDK with one warm sandbox. Each method is an action of a row; one named `ready_...` goes before it.

    Args:
        sandbox: The class `Sandbox`.
        options: What it is to be told beside where the server is.
        place: The servers.
        sizes: How much to do.
    """

    def __init__(self, sandbox: Any, options: dict[str, Any], place: Place, sizes: Sizes) -> None:
        self.kind = sandbox
        self.sizes = sizes
        self.options = {**place.options(), **options}
        self.sandbox = sandbox.create(timeout=3600, **self.options)
        self.sandbox.commands.run("true")
        self.sandbox.files.write("warm/file", b"1")
        self.sandbox.files.read("warm/file", format="bytes")
        if place.events_url:
            self.fed = sandbox.connect(
                self.sandbox.sandbox_id, **{**self.options, "sandbox_url": place.events_url}
            )
        self._file: IO[bytes] | None = None
        self._small = [
            {"path": f"small/{number:04}", "data": os.urandom(1024)} for number in range(sizes.files)
        ]

    def close(self) -> None:
        """End the sandbox."""
        self.sandbox.kill()

    def run_true(self) -> None:
        self.sandbox.commands.run("true")

    def list_files(self) -> None:
        assert len(self.sandbox.files.list("warm")) == 1

    def exists(self) -> None:
        assert self.sandbox.files.exists("warm/file")

    def get_info(self) -> None:
        assert self.sandbox.get_info().sandbox_id == self.sandbox.sandbox_id

    def events(self) -> None:
        count = 0

        def take(text: str) -> None:
            nonlocal count
            count += 1

        self.fed.commands.run("events", on_stdout=take)
        assert count == self.sizes.events, count

    def ready_long_output(self) -> None:
        self.sandbox.commands.run("echo", on_stdout=lambda text: None, **self._unretained())

    def long_output(self) -> None:
        size = 0

        def take(text: str) -> None:
            nonlocal size
            size += len(text)

        command = f"head -c {self.sizes.output_mib}M /dev/zero"
        self.sandbox.commands.run(command, on_stdout=take, timeout=0, **self._unretained())
        assert size == self.sizes.output_mib * MIB, size

    def _unretained(self) -> dict[str, Any]:
        """What says that output need not be kept, where that can be said."""
        return {}

    def ready_file_up(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir="/dev/shm")  # noqa: SIM115 - for as long as the process
            with tempfile.TemporaryFile() as small:
                small.write(b"1")
                small.seek(0)
                self.sandbox.files.write("file", small)
            self.sandbox.files.read("file", format="stream")
        fill(self._file, self.sizes.file_bytes)

    def file_up(self) -> None:
        self.sandbox.files.write("file", self._file)

    def ready_file_down(self) -> None:
        if not self.sandbox.files.exists("file"):
            self.ready_file_up()
            self.file_up()

    def file_down(self) -> None:
        size = 0
        for piece in self.sandbox.files.read("file", format="stream"):
            size += len(piece)
        assert size == self.sizes.file_bytes, size

    def write_many(self) -> None:
        assert len(self.sandbox.files.write_files(self._small)) == self.sizes.files

    def ready_list_many(self) -> None:
        if not self.sandbox.files.exists("small"):
            self.write_many()

    def list_many(self) -> None:
        assert len(self.sandbox.files.list("small")) == self.sizes.files

    def ready_crowd(self) -> None:
        self.sandbox.commands.run("rm -f gate && mkfifo gate")
        self.sandbox.commands.run("true", background=True).wait()

    def crowd(self) -> Sample:
        """Start commands that all wait for a byte from a pipe, and wait for them when it has come."""
        before = resident()
        count = self.sizes.crowd
        handles = [
            self.sandbox.commands.run("exec head -c 1 gate", background=True, timeout=0) for _ in range(count)
        ]
        held: Sample = {"held": resident() - before, "threads": threads()}
        self.sandbox.commands.run(_RELEASE.format(count=count), timeout=0)
        for handle in handles:
            assert handle.wait().exit_code == 0
        return held

    def ready_watch(self) -> None:
        raise NotImplementedError

    def watch(self) -> Sample:
        """Tell how long after changes of a directory the news of them came."""
        raise NotImplementedError

    def list_sandboxes(self) -> None:
        """List, page by page, the sandboxes that are there for that."""
        assert sum(1 for _ in self._listed()) == self.sizes.sandboxes

    def _listed(self) -> Iterator[Any]:
        raise NotImplementedError
