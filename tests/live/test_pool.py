"""A pool of real sandboxes: many threads, forks, exits and deaths of the process, interrupts, greenlets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sandbox_sync import Sandbox, SandboxPool, SandboxQuery, deadline
from tests.process.sdk_program import Outcome, finish

THREADS = 64
TURNS = 2


def named(name: str) -> list[str]:
    """The sandboxes of one test; others share the server."""
    return [info.sandbox_id for info in Sandbox.list(query=SandboxQuery(metadata={"pool": name}))]


def gone(name: str, within: float) -> None:
    until = time.monotonic() + within
    while left := named(name):
        assert time.monotonic() < until, f"{left} are still there"
        time.sleep(0.1)


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(program: str, *arguments: str) -> Outcome:
    return finish(start(program, *arguments))


@pytest.mark.usefixtures("server_env")
def test_many_threads_never_share_one_and_there_are_never_too_many(request: pytest.FixtureRequest) -> None:
    name = request.node.name
    in_use: set[str] = set()
    used: set[str] = set()
    lock = threading.Lock()
    over = threading.Event()
    most = 0

    def watch() -> None:
        nonlocal most
        while not over.wait(0.05):
            most = max(most, len(named(name)))

    def use() -> None:
        for _ in range(TURNS):
            with pool.sandbox(timeout=100) as sandbox:
                with lock:
                    assert sandbox.sandbox_id not in used, "it was another one's"
                    used.add(sandbox.sandbox_id)
                    in_use.add(sandbox.sandbox_id)
                    assert len(in_use) <= 8
                assert sandbox.commands.run("ls -A /tmp; echo mine > /tmp/mine").stdout == ""
                with lock:
                    in_use.remove(sandbox.sandbox_id)

    with SandboxPool(2, 8, metadata={"pool": name}) as pool:
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            with ThreadPoolExecutor(THREADS) as executor:
                for worker in [executor.submit(use) for _ in range(THREADS)]:
                    worker.result(100)
        finally:
            over.set()
            watcher.join()
        assert pool.stats().lent == len(used) == THREADS * TURNS
        assert pool.stats().unhealthy == pool.stats().failed == pool.stats().dropped == 0
    assert 2 < most <= 8
    assert named(name) == []


def clean(sandbox: Sandbox) -> bool:
    sandbox.commands.run(
        "kill -9 -1; find / -xdev -user user '!' -path '/home/user' -delete", user="root", check=False
    )
    sandbox.commands.run("find /home/user /tmp -mindepth 1 -delete", user="root")
    return True


@pytest.mark.usefixtures("server_env", "transport")
def test_what_is_recycled_is_clean_and_what_died_meanwhile_is_replaced(
    request: pytest.FixtureRequest,
) -> None:
    with SandboxPool(1, 1, recycle=clean, metadata={"pool": request.node.name}) as pool:
        with pool.sandbox() as first:
            first.files.write("secret", "x")
            first.commands.run("sleep 1000", background=True)
        with pool.sandbox() as second:
            assert second.sandbox_id == first.sandbox_id
            assert second.files.list(".") == []
            assert second.commands.list() == []
        pool.warm()
        Sandbox.kill(first.sandbox_id)
        time.sleep(1.1)
        with pool.sandbox() as third, deadline(20):
            assert third.sandbox_id != first.sandbox_id
            assert third.commands.run("echo on").stdout == "on\n"
        assert pool.stats().unhealthy == 1


FORKS = """
import os, sys
from sandbox_sync import InvalidArgumentException, Sandbox, SandboxPool
pool = SandboxPool(1, 2, metadata={"pool": sys.argv[1]})
with pool.sandbox() as mine:
    children = []
    for child in range(3):
        pid = os.fork()
        if pid:
            children.append(pid)
            continue
        assert pool.stats().in_use == pool.stats().idle == 0
        with pool.sandbox(timeout=30) as own:
            assert own.sandbox_id != mine.sandbox_id
            assert own.commands.run("echo child").stdout == "child\\n"
        sys.exit()  # through the end of the parent's block, and what runs at exit
    for pid in children:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert mine.commands.run("echo still mine").stdout == "still mine\\n"
    assert pool.stats().in_use == 1
assert len(Sandbox.list()) >= 1
held = pool.acquire()
print(held.sandbox_id)
"""


@pytest.mark.usefixtures("server_env")
def test_forks_have_pools_of_their_own_and_all_are_drained_at_exit(request: pytest.FixtureRequest) -> None:
    name = request.node.name
    outcome = run(FORKS, name)
    assert outcome.code == 0, outcome.errors
    assert outcome.output.strip()
    assert named(name) == [], "also what was in use has to go at exit"


BUSY_FORK = """
import os, sys, threading
from sandbox_sync import SandboxPool
pool = SandboxPool(2, 4, metadata={"pool": sys.argv[1]})
over = threading.Event()

def use():
    while not over.is_set():
        with pool.sandbox(timeout=50):
            pass

with pool.sandbox():
    pass
threads = [threading.Thread(target=use) for _ in range(6)]
for thread in threads:
    thread.start()
children = []
for _ in range(6):  # while its locks are held now and then
    pid = os.fork()
    if not pid:
        with pool.sandbox(timeout=50) as sandbox:
            assert sandbox.is_running()
        pool.close()
        os._exit(0)
    children.append(pid)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
over.set()
for thread in threads:
    thread.join()
assert codes == [0] * 6, codes
"""


@pytest.mark.usefixtures("server_env")
def test_a_pool_in_full_use_may_be_forked(request: pytest.FixtureRequest) -> None:
    outcome = run(BUSY_FORK, request.node.name)
    assert outcome.code == 0, outcome.errors
    assert named(request.node.name) == []


DIES = """
import sys, time
from sandbox_sync import SandboxPool
pool = SandboxPool(2, 4, lease=3, metadata={"pool": sys.argv[1]})
with pool.sandbox() as sandbox:
    pool.warm()
    print("ready", flush=True)
    time.sleep(100)
"""


@pytest.mark.usefixtures("server_env")
def test_sigkill_leaks_nothing_beyond_the_lease(request: pytest.FixtureRequest) -> None:
    name = request.node.name
    process = start(DIES, name)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(4)
    assert len(named(name)) == 3, "they outlive their leases while the process does"
    os.kill(process.pid, signal.SIGKILL)
    finish(process)
    gone(name, within=3 + 4)


INTERRUPTED = """
import random, signal, sys, time
from sandbox_sync import PoolTimeoutException, SandboxPool
pool = SandboxPool(0, 2, recycle=lambda sandbox: True, metadata={"pool": sys.argv[1]})

class Interrupt(BaseException):
    pass

def interrupt(*_):
    raise Interrupt

# In a wait it is felt at once.
signal.signal(signal.SIGALRM, interrupt)
with pool.sandbox(), pool.sandbox():
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    began = time.monotonic()
    try:
        pool.acquire(timeout=50)
    except Interrupt:
        print(time.monotonic() - began)
    assert pool.stats().waiting == 0

# Wherever it strikes, no sandbox and no room is lost: in the end both are there.
chance = random.Random(7)
struck = 0
for _ in range(600):
    try:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00001, 0.0006))
        while True:
            with pool.sandbox(timeout=50):
                pass
    except Interrupt:
        struck += 1
assert struck == 600
for _ in range(3):
    with pool.sandbox(timeout=30) as one, pool.sandbox(timeout=30) as two:
        assert one.sandbox_id != two.sandbox_id
        assert one.commands.run("echo 1").stdout == "1\\n"
        stats = pool.stats()
        assert (stats.in_use, stats.waiting) == (2, 0), stats
print(stats)
"""


@pytest.mark.usefixtures("server_env")
def test_interrupts_are_felt_at_once_and_lose_nothing(request: pytest.FixtureRequest) -> None:
    outcome = run(INTERRUPTED, request.node.name)
    assert outcome.code == 0, outcome.errors + outcome.output
    felt = float(outcome.output.splitlines()[0])
    assert 0.3 <= felt < 0.3 + 0.5
    assert named(request.node.name) == []


GREEN = """
from gevent import monkey, spawn, joinall
monkey.patch_all()
import sys, time
from sandbox_sync import SandboxPool
pool = SandboxPool(2, 4, metadata={"pool": sys.argv[1]})

def use(n):
    with pool.sandbox(timeout=50) as sandbox:
        return sandbox.commands.run(f"echo {n}").stdout

ticks = 0
def tick():
    global ticks
    while True:
        time.sleep(0.01)
        ticks += 1

ticking = spawn(tick)
jobs = [spawn(use, n) for n in range(16)]
joinall(jobs, timeout=50)
assert [job.value for job in jobs] == [f"{n}\\n" for n in range(16)]
assert ticks > 5, "the other greenlets stood still"
ticking.kill()
assert pool.stats().lent == 16
"""


@pytest.mark.usefixtures("server_env")
def test_greenlets_share_a_pool(request: pytest.FixtureRequest) -> None:
    pytest.importorskip("gevent", reason="gevent is not installed", exc_type=ImportError)
    outcome = run(GREEN, request.node.name)
    assert outcome.code == 0, outcome.errors
    assert named(request.node.name) == []
