"""Programs that take the whole screen, in terminals of real sandboxes, as their user sees them."""

from __future__ import annotations

import shutil

import pytest

from sandbox_sync import PtySize, Sandbox
from tests.live.terminals import terminal


def needs(program: str) -> pytest.MarkDecorator:
    """The sandbox's programs are those of this machine."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"there is no {program} on this machine")


@pytest.mark.documented("Pty.create", "Pty.send_stdin")
@needs("vi")
def test_vi_edits_a_file(sandbox: Sandbox) -> None:
    sandbox.files.write("poem.txt", "".join(f"line {n}\n" for n in range(1, 101)))
    with terminal(sandbox, rows=12, cols=60) as seen:
        seen.type("vi poem.txt\n")
        seen.sees("line 1", "line 11")
        assert seen.lines[:11] == [f"line {n}" for n in range(1, 12)]
        seen.type("G")
        seen.until(lambda: seen.lines[10] == "line 100")
        seen.resize(PtySize(rows=20, cols=60))
        seen.until(lambda: seen.lines[18] == "line 100" and seen.lines[0] == "line 82")
        seen.type("ofrom a terminal: \u00e4\u20ac\x1b")
        seen.sees("from a terminal: \u00e4\u20ac")
        seen.type("ggdd")
        seen.until(lambda: seen.lines[0] == "line 2")
        seen.type(":wq\n")
        seen.until(lambda: seen.at_prompt)
    lines = sandbox.files.read("poem.txt").splitlines()
    assert lines == [*(f"line {n}" for n in range(2, 101)), "from a terminal: \u00e4\u20ac"]


@pytest.mark.documented("Pty.create", "Pty.send_stdin")
@needs("nano")
def test_nano_writes_a_file(sandbox: Sandbox) -> None:
    with terminal(sandbox) as seen:
        seen.type("nano note.txt\n")
        seen.sees("GNU nano", "note.txt", "^X")
        seen.type("written with nano")
        seen.sees("written with nano")
        seen.type("\x18")
        seen.sees("Save modified buffer")
        seen.type("y\r")
        seen.until(lambda: seen.at_prompt)
    assert sandbox.files.read("note.txt") == "written with nano\n"


@needs("top")
def test_top_shows_the_processes_and_fills_the_screen(sandbox: Sandbox) -> None:
    with terminal(sandbox, rows=24, cols=100) as seen:
        seen.type("top -d 0.3\n")
        seen.sees("Tasks:", "PID USER", "COMMAND", "bash")
        first = seen.lines[0]
        seen.until(lambda: seen.lines[0].startswith("top - ") and seen.lines[0] != first)
        seen.resize(PtySize(rows=10, cols=60))
        seen.until(lambda: any("PID USER" in line for line in seen.lines[:9]))
        seen.type("q")
        seen.until(lambda: seen.at_prompt)
        assert seen.handle.poll() is None


@pytest.mark.documented("Pty.create", "Pty.send_stdin")
@needs("python3")
def test_pythons_prompt_computes_and_can_be_interrupted(sandbox: Sandbox) -> None:
    with terminal(sandbox) as seen:
        seen.type("PYTHON_BASIC_REPL=1 python3 -q\n")  # the other one lays out what is pasted
        seen.until(lambda: seen.text.endswith(">>>"))
        seen.type("6 * 7\n")
        seen.sees("\n42\n>>>")
        seen.type("import sys, os; (sys.stdin.isatty(), os.get_terminal_size().columns)\n")
        seen.sees("\n(True, 100)\n>>>")
        seen.type("for word in 'abc':\n    print(word * 3)\n\n")
        seen.sees("\naaa\nbbb\nccc\n>>>")
        seen.type("import time; print('sl' + 'eeps'); time.sleep(100)\n")
        seen.sees("\nsleeps")
        seen.type("\x03")
        seen.sees("KeyboardInterrupt")
        seen.until(lambda: seen.text.endswith(">>>"))
        seen.type("1 + 1\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D5\n")  # with the cursor keys: 51 + 1
        seen.sees("\n52\n>>>")
        seen.type("exit(5)\n")
        seen.until(lambda: seen.at_prompt)
        assert seen.run("python3 -c 'import sys; sys.exit(5)'; echo code $?") == "code 5"


@pytest.mark.documented("Pty.create", "Pty.send_stdin")
@needs("less")
def test_less_turns_pages_and_searches(sandbox: Sandbox) -> None:
    sandbox.files.write("long.txt", "".join(f"entry {n}\n" for n in range(1, 501)))
    with terminal(sandbox, rows=11, cols=50) as seen:
        seen.type("less long.txt\n")
        seen.until(lambda: seen.lines[:10] == [f"entry {n}" for n in range(1, 11)])
        assert seen.lines[10] == "long.txt"
        seen.type(" ")
        seen.until(lambda: seen.lines[:10] == [f"entry {n}" for n in range(11, 21)])
        seen.type("/entry 250\n")
        seen.until(lambda: seen.lines[0] == "entry 250")
        seen.type("G")
        seen.until(lambda: seen.lines[9] == "entry 500")
        seen.type("q")
        seen.until(lambda: seen.at_prompt)
