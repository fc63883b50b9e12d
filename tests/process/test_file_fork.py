"""Streams of files in forked processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox_sync import Sandbox
from tests.process.sdk_program import succeeds

PROGRAM = """
    import hashlib
    from sandbox_sync import ConnectionException, Sandbox
    files = Sandbox.connect(sys.argv[1]).files
    stream = files.read("f", format="stream")
    digest = hashlib.sha256(stream.read(1000))
    reading = threading.Thread(target=lambda: digest.update(stream.read()))

    def child():
        try:
            stream.read()
        except ConnectionException:   # and never the parent's bytes, nor an end
            stream.close()
            return hashlib.sha256(files.read("f", format="bytes")).hexdigest() == sys.argv[2]
        return False

    children = []
    for number in range(4):
        children.append(os.fork())
        if not children[-1]:
            os._exit(0 if child() else 1)
        if number == 1:
            reading.start()   # the others are forked while a thread reads
    reading.join()
    assert exit_codes(children) == [0] * 4
    assert digest.hexdigest() == sys.argv[2]
    print("whole")
"""


@pytest.fixture
def sandbox(server_env: dict[str, str]) -> Iterator[Sandbox]:
    with Sandbox.create(timeout=300) as sandbox:
        yield sandbox


def test_a_stream_belongs_to_the_process_that_opened_it(sandbox: Sandbox) -> None:
    """G44: a child gets an error and a connection of its own, and the parent reads on undisturbed."""
    digest = sandbox.commands.run("head -c 100M /dev/urandom > f; sha256sum f").stdout.split()[0]
    assert succeeds(PROGRAM, sandbox.sandbox_id, digest) == "whole\n"
