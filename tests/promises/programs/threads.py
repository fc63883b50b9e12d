"""One sandbox, many threads.

usage: threads.py shared|parallel|callback|kill
"""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from client import report, sandbox

variant = sys.argv[1]
box = sandbox()


def own(thread: int) -> bool:
    path = f"/tmp/{thread}"
    for call in range(16):
        box.files.write(path, f"{thread} {call}")
        if box.files.read(path) != f"{thread} {call}":
            return False
    return bool(box.commands.run(f"echo {thread}").stdout == f"{thread}\n")


if variant == "shared":
    with ThreadPoolExecutor(64) as pool:
        right = sum(pool.map(own, range(64)))
    report(right == 64, f"{right} of 64 threads got their own answers in {64 * 33} calls")
elif variant == "parallel":
    started = time.monotonic()
    with ThreadPoolExecutor(40) as pool:
        list(pool.map(lambda _: box.commands.run("sleep 1"), range(40)))
    took = time.monotonic() - started
    report(took < 5, f"{took:.1f} s")
elif variant == "callback":
    found: list[bool] = []
    box.commands.run("echo a", on_stdout=lambda _: found.append(box.files.exists("/tmp")))
    report(found == [True], f"the call inside gave {found}")
else:
    handle = box.commands.run("sleep 30", background=True)
    killed = 0.0

    def kill() -> None:
        global killed
        killed = time.monotonic()
        handle.kill()

    threading.Timer(0.3, kill).start()
    try:
        handle.wait()
    except Exception as error:  # noqa: BLE001  # each SDK has a class of its own
        name = type(error).__name__
    else:
        name = "nothing raised"
    took = time.monotonic() - killed
    report(took < 1, f"{name} after {took:.2f} s")
