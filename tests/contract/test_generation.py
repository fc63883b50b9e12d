"""generated/ is what scripts/generate writes, and scripts/generate refuses what it cannot express."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip(
    "openapi_python_client", reason="the generators need CPython 3.11 and their group installed"
)

ROOT = Path(__file__).resolve().parents[2]


def generate(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / "scripts" / "generate"), *options],
        capture_output=True,
        text=True,
        timeout=100,
    )


def tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what generation reads and writes."""
    for name in ("openapi.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("proto", "scripts", "generated"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.fixture
def edit(checkout: Path) -> Callable[[str, str, str], None]:
    """Replace a text that occurs once or more in a file of the checkout."""

    def replace(name: str, old: str, new: str) -> None:
        text = (checkout / name).read_text()
        assert old in text
        (checkout / name).write_text(text.replace(old, new))

    return replace


def test_the_committed_packages_are_what_is_generated() -> None:
    """G53: generation writes the committed tree, byte for byte."""
    run = generate(ROOT, "--check")
    assert (run.returncode, run.stdout) == (0, ""), run.stdout + run.stderr


def test_generating_again_changes_nothing(checkout: Path) -> None:
    """G53: from nothing, and over what is there, the same tree comes out."""
    committed = tree(checkout / "generated")
    shutil.rmtree(checkout / "generated")
    for _ in range(2):
        run = generate(checkout)
        assert run.returncode == 0, run.stderr
        assert tree(checkout / "generated") == committed


def test_a_changed_contract_is_noticed_and_nothing_is_written(
    checkout: Path, edit: Callable[[str, str, str], None]
) -> None:
    committed = tree(checkout / "generated")
    edit("openapi.yaml", "What went wrong.", "What failed.")
    edit("proto/process/process.proto", "message PTY {", "message PTY {\n  string term = 99;\n")
    run = generate(checkout, "--check")
    assert run.returncode == 1
    assert "differs: generated/sandbox_sync_rest/models/error.py" in run.stdout.splitlines()
    assert "differs: generated/sandbox_sync_rpc/process_pb2.py" in run.stdout.splitlines()
    assert tree(checkout / "generated") == committed


def test_missing_and_surplus_files_are_noticed_and_put_right(checkout: Path) -> None:
    committed = tree(checkout / "generated")
    package = checkout / "generated" / "sandbox_sync_rest"
    (package / "client.py").unlink()
    (package / "models" / "leftover.py").write_text("")
    expected = [
        "missing: generated/sandbox_sync_rest/client.py",
        "surplus: generated/sandbox_sync_rest/models/leftover.py",
    ]
    run = generate(checkout, "--check")
    assert (run.returncode, run.stdout.splitlines()) == (1, expected)
    assert generate(checkout).returncode == 0
    assert tree(checkout / "generated") == committed


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("explode: false", "explode: true", "get_v2_sandboxes: state is exploded"),
        (
            "      description: ID of the sandbox.\n      schema",
            "      schema",
            "sandboxID has no description",
        ),
        ("#/components/schemas/SandboxState", "#/components/schemas/Nowhere", "Could not find reference"),
        ("application/json:", "application/yaml:", "Unsupported content"),
    ],
)
def test_what_cannot_be_generated_faithfully_is_an_error(
    checkout: Path, edit: Callable[[str, str, str], None], old: str, new: str, complaint: str
) -> None:
    """G53: a warning of the generator, or a feature that the templates lack, fails the generation."""
    committed = tree(checkout / "generated")
    edit("openapi.yaml", old, new)
    run = generate(checkout)
    assert run.returncode == 1
    assert complaint in run.stderr
    assert tree(checkout / "generated") == committed


def test_another_release_of_a_generator_is_refused(
    checkout: Path, edit: Callable[[str, str, str], None]
) -> None:
    """G53: the generators are pinned, and the pins are enforced."""
    edit("pyproject.toml", "openapi-python-client==", "openapi-python-client==9")
    run = generate(checkout)
    assert run.returncode == 1
    assert "scripts/generate needs openapi-python-client==9" in run.stderr
