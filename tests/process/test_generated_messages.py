"""The generated messages share a process with anything that registers the same .proto files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# The last release of the official package that registers its protos in the process-wide descriptor pool.
REGISTERING_RELEASE = "2.34.0"

OURS = "from sandbox_sync_rpc import process_pb2, filesystem_pb2"
THEIRS = "import e2b"
USE_BOTH = """
event = process_pb2.ProcessEvent(start=process_pb2.ProcessEvent.StartEvent(pid=7))
assert process_pb2.ProcessEvent.FromString(event.SerializeToString()).start.pid == 7
entry = filesystem_pb2.EntryInfo(name="a", is_symlink=True)
entry.modified_time.FromSeconds(5)
assert filesystem_pb2.EntryInfo.FromString(entry.SerializeToString()).modified_time.ToSeconds() == 5
from importlib.metadata import version
print(e2b.__file__)
"""
# An older release must really have put its own file into the shared pool, or the test would prove nothing.
REGISTERED = """
from google.protobuf import descriptor_pool
descriptor_pool.Default().FindFileByName("process/process.proto")
theirs = descriptor_pool.Default().FindMessageTypeByName("filesystem.EntryInfo")
assert "is_symlink" not in theirs.fields_by_name
"""


def run_python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def registering_release() -> Path:
    """A directory with the older official release, installed once per environment."""
    target = Path(sys.prefix, "other-releases", f"e2b-{REGISTERING_RELEASE}")
    if not target.exists():
        scratch = target.with_name(f"{target.name}.{os.getpid()}")
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--target",
                scratch,
                f"e2b=={REGISTERING_RELEASE}",
            ],
            check=True,
            timeout=110,
        )
        try:
            scratch.rename(target)
        except OSError:  # Another worker was quicker.
            assert target.exists()
    return target


@pytest.mark.parametrize(
    "imports", [f"{OURS}\n{THEIRS}", f"{THEIRS}\n{OURS}"], ids=["ours first", "theirs first"]
)
def test_messages_live_beside_an_official_release_that_registers_the_same_files(
    imports: str, registering_release: Path
) -> None:
    where = run_python(imports + USE_BOTH + REGISTERED, PYTHONPATH=str(registering_release))
    assert where.startswith(str(registering_release))


@pytest.mark.parametrize(
    "imports", [f"{OURS}\n{THEIRS}", f"{THEIRS}\n{OURS}"], ids=["ours first", "theirs first"]
)
def test_messages_live_beside_the_newest_official_release(imports: str) -> None:
    run_python(imports + USE_BOTH)


@pytest.mark.parametrize("implementation", ["upb", "python"])
def test_messages_work_on_either_protobuf_implementation(implementation: str) -> None:
    run_python(
        f"{OURS}\nclass e2b: __file__ = ''\n{USE_BOTH}", PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=implementation
    )


def test_stubs_need_no_grpc() -> None:
    """G33: the generated stubs load without grpc; only the channel that one chooses may need it."""
    loaded = run_python(
        "import sys\n"
        "from sandbox_sync_rpc.process_stub import ProcessStub\n"
        "from sandbox_sync_rpc.filesystem_stub import FilesystemStub\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('grpc', 'asyncio', 'requests')])"
    )
    assert loaded.strip() == "[]"
