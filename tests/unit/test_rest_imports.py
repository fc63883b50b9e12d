"""What importing the generated REST package loads, seen from fresh interpreters."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REPORT = "import sys; before = set(sys.modules); {code}; print(*sorted(set(sys.modules) - before))"


def loaded_by(code: str) -> set[str]:
    """Names of the modules that a piece of code loads in a fresh interpreter."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", REPORT.format(code=code)],
        env={"PYTHONPATH": str(ROOT / "generated")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


def test_importing_the_package_loads_nothing_else() -> None:
    assert loaded_by("import sandbox_sync_rest") == {"sandbox_sync_rest"}


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("sandbox", {"sandbox"}),
        ("sandbox_state", {"sandbox_state"}),
        ("listed_sandbox", {"listed_sandbox", "sandbox_state", "sandbox_volume_mount"}),
        ("sandbox_fork_result", {"sandbox_fork_result", "sandbox", "error"}),
    ],
)
def test_importing_a_model_loads_only_the_models_it_refers_to(module: str, expected: set[str]) -> None:
    prefix = "sandbox_sync_rest.models."
    loaded = loaded_by(f"import {prefix}{module}")
    assert {name.removeprefix(prefix) for name in loaded if name.startswith(prefix)} == expected


def test_importing_everything_loads_no_http_library() -> None:
    loaded = loaded_by(
        "import importlib, pkgutil, sandbox_sync_rest as package;"
        "[importlib.import_module(m.name)"
        " for m in pkgutil.walk_packages(package.__path__, 'sandbox_sync_rest.')]"
    )
    generated = {name for name in loaded if name.startswith("sandbox_sync_rest")}
    files = list((ROOT / "generated" / "sandbox_sync_rest").rglob("*.py"))
    assert len(generated) == len(files)
    assert not loaded & {"requests", "urllib3", "httpx", "attr", "attrs", "grpc", "asyncio", "ssl"}


THREADS = """
import importlib, sys, threading
sys.setswitchinterval(1e-6)
class Response:
    status_code = 200
    content = b'{"sandboxID": "i1", "network": {"egressProxy": {"address": "proxy:1"}}}'
failures = []
for _ in range(20):
    for name in [name for name in sys.modules if name.startswith("sandbox_sync_rest")]:
        del sys.modules[name]
    get = importlib.import_module("sandbox_sync_rest.api.sandboxes.get_sandboxes_sandbox_id")
    new = importlib.import_module("sandbox_sync_rest.models.new_sandbox_v2").NewSandboxV2
    together = threading.Barrier(8)
    def use():
        together.wait()
        try:
            assert get.parse(Response).network.egress_proxy.address == "proxy:1"
            assert new(template_id="base").to_wire() == {"templateID": "base"}
        except BaseException as error:
            failures.append(error)
    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
assert not failures, failures
"""


def test_threads_may_use_a_model_for_the_first_time_at_once() -> None:
    """G16: pydantic builds models at first use; 8 threads that get there together all succeed."""
    subprocess.run(
        [sys.executable, "-c", THREADS],
        env={"PYTHONPATH": str(ROOT / "generated")},
        check=True,
        timeout=60,
    )


FORK = """
import os, signal, threading
from sandbox_sync_rest import types
from sandbox_sync_rest.models.sandbox import Sandbox
held, done = threading.Event(), threading.Event()
def build():
    with types._building:
        held.set()
        done.wait()
threading.Thread(target=build, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    Sandbox.model_validate({"sandboxID": "i1"})
    os._exit(0)
status = os.waitpid(child, 0)[1]
done.set()
raise SystemExit(os.waitstatus_to_exitcode(status))
"""


def test_a_child_forked_while_a_model_is_built_builds_its_own() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK],
        env={"PYTHONPATH": str(ROOT / "generated")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
