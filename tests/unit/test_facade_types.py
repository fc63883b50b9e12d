"""What type checkers make of the SDK: mypy, ty, and pyright as basedpyright, which needs no download."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from tests.contract import public_api

ROOT = Path(__file__).resolve().parents[2]
CONSUMER = Path(__file__).with_name("facade_consumer.py")
CONFORMANCE = ROOT / "tests" / "contract" / "surface_conformance.py"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

# Each line is a mistake that type checkers have to find, all of them or all but the one that is named.
MISTAKES = """
from sandbox_sync import PtySize, Sandbox, SandboxQuery
Sandbox()
Sandbox("base")
Sandbox.kill()
Sandbox.kill(7)
Sandbox.kill("id", no_such_option=1)  # not ty
Sandbox.create().kill("id")
Sandbox.create().set_timeout()
Sandbox.set_timeout(60)
Sandbox.get_info()
Sandbox.get_info("id").no_such_field
Sandbox.connect()
Sandbox.create().connect("id")
Sandbox.create(transport=5)
Sandbox.create("base", "60")
Sandbox.list(limit="all")
Sandbox.list(query={"metadata": {}})
SandboxQuery(metadata=[])
Sandbox.create().files = None
Sandbox.create().commands.run(["ls"])
Sandbox.create().commands.run("x", background=True).exit_code.bit_length()
Sandbox.create().commands.run("x", on_stdout=5)
Sandbox.create().commands.run("x").wait()
Sandbox.create().commands.run("x", True).wait("5")
Sandbox.create().commands.send_stdin(1, 5)
Sandbox.create().commands.connect("1")
Sandbox.create().files.read("x", format="bytes").encode()
Sandbox.create().files.read("x", format="json")
Sandbox.create().files.write("x")
Sandbox.create().files.write("x", 5)
Sandbox.create().files.write([{"path": "x"}])
Sandbox.create().files.make_dir("x").path
Sandbox.create().files.watch_dir("x", lambda: None)
Sandbox.create().files.watch_dir("x", lambda event: event.no_such_field)
Sandbox.create().pty.create((24, 80))
Sandbox.create().pty.create(PtySize(24, 80), lambda data: data.encode())
Sandbox.create().pty.resize(PtySize(24, 80))
PtySize("24", 80)
"""


def mypy(paths: list[Path], scratch: Path) -> list[str]:
    """What mypy --strict objects to."""
    said = run("mypy", "--strict", "--cache-dir", str(scratch / "cache"), *map(str, paths), cwd=scratch)
    return [line for line in said.splitlines() if ": error:" in line]


def pyright(paths: list[Path], scratch: Path) -> list[str]:
    """What pyright objects to in its strict mode."""
    settings = scratch / "pyrightconfig.json"
    # What is deprecated in the standard library differs from release to release.
    mode = {"typeCheckingMode": "strict", "reportDeprecated": "none"}
    settings.write_text(json.dumps({"include": [*map(str, paths)], **mode}))
    said = run(
        "basedpyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(settings), cwd=scratch
    )
    return [
        f"{problem['file']}:{problem['range']['start']['line'] + 1}: {problem['message']}"
        for problem in json.loads(said)["generalDiagnostics"]
        if problem["severity"] == "error"
    ]


def ty(paths: list[Path], scratch: Path) -> list[str]:
    """What ty objects to."""
    options = ("--output-format", "concise", "--python", sys.executable, "--no-progress")
    said = run("ty", "check", *options, *map(str, paths), cwd=scratch)
    return [line for line in said.splitlines() if ": error[" in line]


CHECKERS: list[Callable[[list[Path], Path], list[str]]] = [mypy, pyright, ty]


def run(module: str, *arguments: str, cwd: Path) -> str:
    """The output of a checker that could do its work."""
    pytest.importorskip(module, reason=f"{module} is not installed")
    command = [sys.executable, "-m", module, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=cwd)
    assert ended.returncode in (0, 1), ended.stderr
    return ended.stdout


@pytest.mark.parametrize("checker", CHECKERS)
def test_typed_programs_are_clean(checker: Callable[[list[Path], Path], list[str]], tmp_path: Path) -> None:
    """G32: mypy --strict, pyright and ty accept a program that uses every method, and the examples."""
    assert checker([CONSUMER, *EXAMPLES], tmp_path) == []


@pytest.mark.parametrize("checker", CHECKERS)
def test_mistakes_are_found(checker: Callable[[list[Path], Path], list[str]], tmp_path: Path) -> None:
    """G32: and they are so because types are known, not because they are Any."""
    program = tmp_path / "mistakes.py"
    program.write_text(MISTAKES)
    found = {int(line.split(":")[1]) for line in checker([program], tmp_path)}
    exempt = f"# not {checker.__name__}"
    expected = {
        number
        for number, line in enumerate(MISTAKES.splitlines(), 1)
        if number > 2 and not line.endswith(exempt)
    }
    assert found == expected


def test_the_documented_types_are_there(tmp_path: Path) -> None:
    """The classes are assignable to protocols with all that is documented.

    mypy is asked the same in scripts/lint. pyright is not: it takes no class for one whose methods it has by
    descriptors.
    """
    assert ty([CONFORMANCE], tmp_path) == []


def test_the_program_uses_every_method_in_both_forms() -> None:
    """G32: a method that is not in the program is not checked."""
    classes = {kind.__name__: kind for kind in public_api.classes()}
    names = [node for node in ast.walk(ast.parse(CONSUMER.read_text())) if isinstance(node, ast.Attribute)]
    used = {(node.attr, isinstance(node.value, ast.Name) and node.value.id[0].isupper()) for node in names}
    missing = [
        member.path
        for kind in classes.values()
        for member in public_api.members(kind)
        if (member.name, member.on_class) not in used
    ]
    assert missing == []


@pytest.mark.parametrize(
    "package", ["sandbox_sync", "sandbox_local", "sandbox_sync_rest", "sandbox_sync_rpc"]
)
def test_each_package_says_that_it_is_typed(package: str) -> None:
    """G32: py.typed is shipped: wheels hold whole packages."""
    assert (files(package) / "py.typed").is_file()
