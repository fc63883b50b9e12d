"""Output of commands in real sandboxes: all of it, as it was, and in bounded memory where asked for."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time

import pytest

from sandbox_sync import Sandbox

MIB = 1 << 20

# 96 MiB of text without a line break, and with characters of every length that no read falls between.
MUCH = """
import hashlib, os
block = ("ab\\u00e4\\u20ac\\U0001f600" * 9 + "x").encode() * 2479
whole, rest = divmod(96 << 20, len(block))
text = block * whole + b"." * rest
os.write(2, hashlib.sha256(text).hexdigest().encode())
view = memoryview(text)
while view:
    view = view[os.write(1, view[:65521]):]
"""


def run_in_a_process(sandbox: Sandbox, code: str, *arguments: str) -> str:
    """What a program says that uses this sandbox."""
    prelude = """
import hashlib, os, resource, sys, threading
from sandbox_sync import Sandbox
sandbox = Sandbox.connect(sys.argv[1])
sandbox.commands.run("true")
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
def digest(pieces):
    sha = hashlib.sha256()
    for piece in pieces:
        sha.update(piece.encode() if isinstance(piece, str) else piece)
    return sha.hexdigest()
before = peak()
"""
    said = subprocess.run(
        [sys.executable, "-c", prelude + code, sandbox.sandbox_id, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert said.returncode == 0, said.stderr
    return said.stdout


WAYS = {
    "result": """
result = sandbox.commands.run("python3 much.py")
print(digest([result.stdout]) == result.stderr, len(result.stdout.encode()), result.truncated)
""",
    "callback": """
sha, size, wanted = hashlib.sha256(), 0, []
def on_stdout(text):
    global size
    data = text.encode()
    sha.update(data)
    size += len(data)
sandbox.commands.run("python3 much.py", on_stdout=on_stdout, on_stderr=wanted.append, retain_output=False)
print(sha.hexdigest() == "".join(wanted), size, peak() - before)
""",
    "iteration": """
sha, size, wanted = hashlib.sha256(), 0, []
for out, err, _ in sandbox.commands.run("python3 much.py", background=True, retain_output=False):
    if err:
        wanted.append(err)
    else:
        data = out.encode()
        sha.update(data)
        size += len(data)
print(sha.hexdigest() == "".join(wanted), size, peak() - before)
""",
    "callback in the background": """
sha, size, wanted = hashlib.sha256(), 0, []
def on_stdout(text):
    global size
    data = text.encode()
    sha.update(data)
    size += len(data)
handle = sandbox.commands.run(
    "python3 much.py", background=True, on_stdout=on_stdout, on_stderr=wanted.append, retain_output=False)
handle.wait(timeout=60)
print(sha.hexdigest() == "".join(wanted), size, peak() - before)
""",
}


@pytest.mark.parametrize("way", WAYS)
def test_much_output_arrives_whole_whichever_way(sandbox: Sandbox, way: str) -> None:
    """96 MiB without a line break, byte for byte; unless it is retained, in 16 MiB of memory more."""
    sandbox.files.write("much.py", MUCH)
    right, size, last = run_in_a_process(sandbox, WAYS[way]).split()
    assert (right, int(size)) == ("True", 96 * MIB)
    if last.isdigit():
        assert int(last) < 16 * MIB
    else:
        assert last == "False"


def test_a_handle_keeps_the_newest_64_mib(sandbox: Sandbox) -> None:
    """Nobody reads 96 MiB, the command ends all the same, and memory is bounded by the cap."""
    code = """
handle = sandbox.commands.run("python3 much.py; echo; echo the end", background=True, timeout=0)
while handle.poll() is None:
    threading.Event().wait(0.02)
grown = peak() - before
kept = handle.stdout_bytes
print(len(kept), grown, kept.endswith(b"the end\\n"), handle.wait().truncated)
"""
    sandbox.files.write("much.py", MUCH)
    kept, grown, ends, truncated = run_in_a_process(sandbox, code).split()
    assert 40 * MIB < int(kept) <= 64 * MIB
    assert int(grown) < 64 * MIB + 16 * MIB
    assert (ends, truncated) == ("True", "True")


def test_small_output_is_not_truncated(sandbox: Sandbox) -> None:
    for retain in (True, False):
        result = sandbox.commands.run("seq 1000", retain_output=retain)
        assert not result.truncated
        assert result.stdout == "".join(f"{n}\n" for n in range(1, 1001))
        handle = sandbox.commands.run("seq 1000", background=True, retain_output=retain)
        assert handle.wait(timeout=10) == result


def test_what_is_not_retained_is_cut_and_says_so(sandbox: Sandbox) -> None:
    whole = "".join(f"{n}\n" for n in range(1, 1_000_001))
    result = sandbox.commands.run("seq 1000000; echo problem >&2", retain_output=False)
    assert result.truncated
    assert 500_000 < len(result.stdout) <= MIB
    assert whole.endswith(result.stdout)
    assert result.stderr == "problem\n"
    handle = sandbox.commands.run("seq 1000000", background=True, retain_output=False)
    again = handle.wait(timeout=20)
    assert again.truncated
    assert whole.endswith(again.stdout)


def test_bytes_that_are_no_text_arrive_as_they_are(sandbox: Sandbox) -> None:
    """G15: raw bytes are available, and invalid bytes never raise, whichever way the output is taken."""
    junk = os.urandom(300_000) + bytes(range(256)) + b"\xe2\x82"
    sandbox.files.write("junk", junk)
    text = junk.decode("utf-8", "replace")
    called: list[str] = []
    assert sandbox.commands.run("cat junk", on_stdout=called.append).stdout == text
    assert "".join(called) == text
    called.clear()
    handle = sandbox.commands.run("cat junk; cat junk >&2", background=True, on_stderr=called.append)
    pieces = [*handle]
    assert "".join(out for out, _, _ in pieces if out) == text
    assert "".join(err for _, err, _ in pieces if err) == text
    assert handle.wait(timeout=10).stdout == handle.stdout == text
    assert handle.wait(timeout=10).stderr == handle.stderr == "".join(called) == text
    assert handle.stdout_bytes == handle.stderr_bytes == junk


def test_text_torn_apart_between_all_bytes_stays_whole(sandbox: Sandbox) -> None:
    """G15: text split at every byte boundary equals the original: each byte is written for itself."""
    text = "a\u00e4\u20ac\U0001f600z\n" * 3
    writer = (
        "import os, time\n"
        f"for byte in {text.encode()!r}:\n"
        "    os.write(1, bytes([byte])); os.write(2, bytes([byte])); time.sleep(0.002)\n"
    )
    sandbox.files.write("torn.py", writer)
    called: list[str] = []
    result = sandbox.commands.run("python3 torn.py", on_stdout=called.append)
    assert result.stdout == result.stderr == "".join(called) == text
    assert "\ufffd" not in text
    assert len(called) > 3, "it did not come in pieces"
    handle = sandbox.commands.run("python3 torn.py", background=True)
    while handle.poll() is None:
        assert text.startswith(handle.stdout)
        assert text.encode().startswith(handle.stdout_bytes)
    assert "".join(out or "" for out, _, _ in handle) == text
    # Half of a character at the end of what was read, with the rest to come a while later.
    late = sandbox.commands.run(r"printf '1 \342\202'; read x; printf '\254 2'", background=True, stdin=True)
    while len(late.stdout_bytes) < 4:
        time.sleep(0.01)
    assert late.stdout == "1 "
    late.send_stdin("\n")
    assert late.wait(timeout=10).stdout == "1 \u20ac 2"


def test_one_long_line_passes(sandbox: Sandbox) -> None:
    """G39: 8 MiB without a break."""
    assert sandbox.commands.run("head -c 8388608 /dev/zero | tr '\\0' x").stdout == "x" * 8_388_608


def test_channels_are_kept_apart(sandbox: Sandbox) -> None:
    result = sandbox.commands.run("for i in $(seq 5000); do echo out $i; echo err $i >&2; done")
    assert result.stdout == "".join(f"out {n}\n" for n in range(1, 5001))
    assert result.stderr == "".join(f"err {n}\n" for n in range(1, 5001))


def test_an_iteration_in_bounded_memory_gets_everything(sandbox: Sandbox) -> None:
    """A command is held up for who is late to iterate, so that nothing is dropped."""
    handle = sandbox.commands.run("seq 2000000", background=True, retain_output=False)
    time.sleep(0.3)
    sha = hashlib.sha256()
    for out, _, _ in handle:
        sha.update((out or "").encode())
    whole = "".join(f"{n}\n" for n in range(1, 2_000_001))
    assert sha.hexdigest() == hashlib.sha256(whole.encode()).hexdigest()
    assert handle.wait().truncated


def test_a_small_event_is_delivered_at_once(sandbox: Sandbox) -> None:
    """G48: 20 bytes and then silence: the callback is called within 50 ms, and an iteration goes on.

    The time begins before the input is sent that the command answers, so the way there is in it, too.
    """
    seen = threading.Event()
    script = "while read x; do echo 0123456789012345678; done"
    handle = sandbox.commands.run(script, background=True, stdin=True, on_stdout=lambda _: seen.set())
    pieces = iter(sandbox.commands.connect(handle.pid))
    for way in ("callback", "iteration"):
        delays = []
        for _ in range(8):
            seen.clear()
            before = time.monotonic()
            handle.send_stdin("ping\n")
            if way == "callback":
                assert seen.wait(5)
                delays.append(time.monotonic() - before)
                next(pieces)
            else:
                assert next(pieces)[0] == "0123456789012345678\n"
                delays.append(time.monotonic() - before)
            time.sleep(0.05)  # silence
        assert sorted(delays)[len(delays) // 2] < 0.05, (way, delays)
    handle.kill()
