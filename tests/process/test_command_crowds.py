"""Many threads that use many sandboxes at once, in a program of their own."""

from __future__ import annotations

import pytest

from tests.process.sdk_program import succeeds

PROGRAM = """
    import faulthandler
    from sandbox_sync import Sandbox
    faulthandler.dump_traceback_later(50, exit=True)
    alone = threading.active_count()
    done, errors = [], []
    together = threading.Barrier(200)

    def work(number):
        try:
            together.wait(30)
            sandbox = Sandbox.create(timeout=120)
            assert sandbox.commands.run(f"echo {number}", timeout=40).stdout == f"{number}\\n"
            handle = sandbox.commands.run(f"echo {number}; sleep 1000", background=True, check=False)
            assert next(iter(handle))[0] == f"{number}\\n"
            assert sandbox.kill()
            done.append(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, (len(errors), errors[0])
    assert sorted(done) == list(range(200))
    deadline = time.monotonic() + 5
    helpers = {"sandbox-sync-watchdog"} if os.environ["SANDBOX_SYNC_TRANSPORT"] == "grpc" else set()
    while {thread.name for thread in threading.enumerate()} - helpers != {"MainThread"}:
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.02)
    if not helpers:
        assert "asyncio" not in sys.modules
"""


@pytest.mark.parametrize("transport", ["connect", "grpc"])
def test_two_hundred_threads_at_once_all_end(server_env: dict[str, str], transport: str) -> None:
    """G55: 200 threads x create + run + kill at once: all end, and no hidden thread runs a loop for them."""
    succeeds(PROGRAM, SANDBOX_SYNC_TRANSPORT=transport)
