"""One sandbox, used by many threads and processes at once."""

from __future__ import annotations

import multiprocessing
import pickle
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from sandbox_sync import CommandResult, Sandbox

THREADS = 64
SECONDS = 6.0


def test_threads_that_share_a_sandbox_get_their_own_answers(sandbox: Sandbox) -> None:
    """G16: 64 threads run, kill, read, write and list at once; every answer bears the nonce of its call.

    The guarantee says 60 s; this is a tenth of it.
    """
    over = time.monotonic() + SECONDS
    done: Counter[str] = Counter()

    def run(nonce: str) -> None:
        streamed: list[str] = []
        result = sandbox.commands.run(f"echo {nonce}; echo {nonce}- >&2", on_stdout=streamed.append)
        assert (result.stdout, result.stderr) == (f"{nonce}\n", f"{nonce}-\n")
        assert "".join(streamed) == result.stdout

    def kill(nonce: str) -> None:
        handle = sandbox.commands.run(f"echo {nonce}; exec sleep 1000", background=True, check=False)
        for stdout, _, _ in handle:
            assert stdout == f"{nonce}\n"
            break
        assert handle.kill() is True
        assert handle.wait(20).stdout == f"{nonce}\n"

    def files(nonce: str) -> None:
        assert sandbox.files.write(nonce, nonce * 100).name == nonce
        assert sandbox.files.read(nonce) == nonce * 100
        sandbox.files.remove(nonce)
        assert not sandbox.files.exists(nonce)

    def lists(nonce: str) -> None:
        sandbox.files.write(f"{nonce}/{nonce}", b"")
        assert [entry.name for entry in sandbox.files.list(nonce)] == [nonce]

    def service(nonce: str) -> None:
        assert sandbox.get_info().sandbox_id == sandbox.sandbox_id
        assert sandbox.is_running()

    kinds = (run, kill, files, lists, service)

    def work(seed: int) -> None:
        chance = random.Random(seed)
        while time.monotonic() < over:
            kind = chance.choice(kinds)
            kind(uuid4().hex)
            done[kind.__name__] += 1

    with ThreadPoolExecutor(THREADS) as pool:
        for worker in [pool.submit(work, seed) for seed in range(THREADS)]:
            worker.result(100)
    assert set(done) == {kind.__name__ for kind in kinds}
    assert sum(done.values()) > 2 * THREADS, done
    assert sandbox.commands.list() == []


def test_threads_share_one_listing(sandbox: Sandbox) -> None:
    """G16: and the pages are fetched once."""
    listing = Sandbox.list(limit=1)
    barrier = threading.Barrier(16)

    def look() -> list[str]:
        barrier.wait()
        return [info.sandbox_id for info in listing]

    with ThreadPoolExecutor(16) as pool:
        seen = [worker.result(60) for worker in [pool.submit(look) for _ in range(16)]]
    assert sandbox.sandbox_id in seen[0]
    assert all(one == seen[0] for one in seen)


def say(sandbox: Sandbox, word: str) -> CommandResult:
    return sandbox.commands.run(f"echo {word}")


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_sandbox_goes_to_worker_processes(sandbox: Sandbox, method: str) -> None:
    """G61: it pickles into workers, with no key and no token in the pickle."""
    pickled = pickle.dumps(sandbox)
    access = sandbox._open().access
    for secret in (access.token, sandbox.connection_config.api_key):
        assert secret
        assert secret.encode() not in pickled
    sandbox.commands.run("echo warm")
    with multiprocessing.get_context(method).Pool(2) as pool:
        words = [uuid4().hex for _ in range(8)]
        results = pool.starmap(say, [(sandbox, word) for word in words])
    assert [result.stdout for result in results] == [f"{word}\n" for word in words]


FORKSERVER = """
import multiprocessing, sys
from sandbox_sync import Sandbox

def say(sandbox, word):
    return sandbox.commands.run(f"echo {word}").stdout

if __name__ == "__main__":
    multiprocessing.set_start_method("forkserver")
    with Sandbox.create() as sandbox, multiprocessing.Pool(2) as pool:
        sandbox.commands.run("echo warm")
        words = [str(n) for n in range(8)]
        assert pool.starmap(say, [(sandbox, word) for word in words]) == [f"{word}\\n" for word in words]
        print("each got its own")
"""


@pytest.mark.usefixtures("server_env", "transport")
def test_a_sandbox_goes_to_workers_of_a_fork_server(tmp_path: Path) -> None:
    """G61: in a program of its own, for a fork server keeps the environment that it was started in."""
    program = tmp_path / "program.py"
    program.write_text(FORKSERVER)
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("each got its own\n", "")


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_the_class_forms_go_to_worker_processes(sandbox: Sandbox, method: str) -> None:
    """G61: `Sandbox.kill` and its like pickle by their name."""
    assert pickle.loads(pickle.dumps(Sandbox.kill)) is Sandbox.kill
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(Sandbox.get_info, (sandbox.sandbox_id,)).sandbox_id == sandbox.sandbox_id
        assert pool.apply(Sandbox.kill, (sandbox.sandbox_id,)) is True
        assert pool.apply(sandbox.kill) is False
