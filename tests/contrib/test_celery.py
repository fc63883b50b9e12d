"""Sandboxes in Celery: in real workers of several pools, with Redis between."""

from __future__ import annotations

import gc
import inspect
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded
from celery.result import AsyncResult
from kombu.utils.json import dumps, loads

from sandbox_local import LocalServer
from sandbox_sync import (
    CommandExitException,
    CommandResult,
    DeadlineExceededException,
    EntryInfo,
    FilesystemEvent,
    FilesystemEventType,
    FileType,
    InvalidArgumentException,
    ProcessInfo,
    SandboxException,
    SandboxInfo,
    SandboxState,
    WriteInfo,
    errors,
)
from sandbox_sync.contrib.celery import SandboxTask
from tests.contrib.serving import EXAMPLES, PATIENCE, ROOT, ids, program, wait_for, wait_until_none_is_left

EXAMPLE = EXAMPLES / "celery_app"


def got(sent: AsyncResult[Any]) -> Any:
    """What came of a task."""
    return sent.get(timeout=PATIENCE, interval=0.05)


@contextmanager
def client(redis_url: str, **conf: object) -> Iterator[Celery]:
    """An app that sends tasks to a worker."""
    app = Celery("client", broker=redis_url, backend=redis_url, set_as_current=False)
    app.conf.update(accept_content=["json", "pickle"], result_accept_content=["json", "pickle"], **conf)
    try:
        yield app
    finally:
        gc.collect()  # results speak to Redis when they go
        backend: Any = app.backend
        backend.result_consumer.stop()
        backend.client.connection_pool.disconnect()
        app.close()


@contextmanager
def worker(
    pool: str, server: LocalServer, redis_url: str, directory: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The worker of the example, which has our tasks as well; its parent process has used the SDK."""
    settings = {"REDIS_URL": redis_url, "PYTHONPATH": str(ROOT), "USE_IN_PARENT": "1", **environment}
    own = ["--app", "app", "worker", "--include", "tests.contrib.celery_tasks"]
    options = ["--pool", pool, "--concurrency", "2", "--loglevel", "INFO"]
    quick = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    command = ["-m", "celery", "--workdir", str(EXAMPLE), *own, *options, *quick]
    with program(command, {**server.env, **settings}, directory / f"{pool}.log") as running:
        yield running


@pytest.fixture(scope="module")
def prefork(
    counted_server: LocalServer, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Celery]:
    """What sends tasks to a worker with two processes."""
    # A queue of its own in the one Redis: its database.
    url = f"{redis_url}?virtual_host=1"
    with worker("prefork", counted_server, url, tmp_path_factory.mktemp("celery")), client(url) as app:
        yield app


@pytest.fixture(autouse=True)
def counted(own_server: dict[str, str]) -> None:
    """Sandboxes are those of this module."""


def meeting(app: Celery, party: Path) -> set[str]:
    """The sandboxes of two tasks that run at the same time."""
    sent = [app.send_task("meet", [str(party), 2]) for _ in range(2)]
    return {got(result) for result in sent}


def test_processes_of_a_worker_that_used_the_sdk_work_and_share_no_sandbox(
    prefork: Celery, tmp_path: Path
) -> None:
    assert len(meeting(prefork, tmp_path)) == 2
    wait_until_none_is_left()


def test_what_the_sdk_gives_travels_as_json(prefork: Celery) -> None:
    given = got(prefork.send_task("models"))
    assert isinstance(given["written"], WriteInfo)
    assert given["written"].type is FileType.FILE
    entry = next(entry for entry in given["entries"] if entry.name == "file")
    assert isinstance(entry, EntryInfo)
    assert isinstance(entry.modified_time, datetime)
    assert isinstance(given["info"], SandboxInfo)
    assert given["info"].state is SandboxState.RUNNING
    assert all(isinstance(process, ProcessInfo) for process in given["processes"])
    assert (
        given["result"] == CommandResult("err\n", "out\n", 3, "exit status 3")
        or given["result"].exit_code == 3
    )
    wait_until_none_is_left()


def test_an_exception_travels_as_json(prefork: Celery) -> None:
    with pytest.raises(CommandExitException, match=r"exit code 3.*\n?.*why"):
        got(prefork.send_task("fail"))
    wait_until_none_is_left()


def test_a_retry_has_a_sandbox_of_its_own(prefork: Celery) -> None:
    first, second = got(prefork.send_task("again", [[]]))
    assert first != second
    wait_until_none_is_left()


def test_a_soft_time_limit_is_felt_and_ends_the_sandbox(prefork: Celery) -> None:
    assert got(prefork.send_task("feel", soft_time_limit=2)) < 10
    wait_until_none_is_left()
    with pytest.raises(SoftTimeLimitExceeded):
        got(prefork.send_task("hang", soft_time_limit=1))
    wait_until_none_is_left()


@pytest.mark.parametrize("end", ["revoked", "hard time limit"])
def test_a_process_that_is_killed_leaves_its_sandbox_no_longer_than_the_lease(
    prefork: Celery, end: str
) -> None:
    if end == "revoked":
        sent = prefork.send_task("hang")
        wait_for(ids, "the task's sandbox")
        prefork.control.revoke(sent.id, terminate=True, signal="SIGTERM")
        expected: type[Exception] = TaskRevokedError
    else:
        sent = prefork.send_task("persist", soft_time_limit=1, time_limit=2)
        expected = TimeLimitExceeded
    with pytest.raises(expected):
        got(sent)
    wait_until_none_is_left()
    assert got(prefork.send_task("linger", [0])) == "done\n"


@pytest.mark.parametrize(
    ("pool", "serializer"), [("prefork", "json"), ("threads", "pickle"), ("gevent", "json")]
)
def test_a_worker_of_each_pool_ends_well(
    pool: str, serializer: str, counted_server: LocalServer, redis_url: str, tmp_path: Path
) -> None:
    # The prefork worker that the other tests share speaks Connect.
    settings = {"RESULT_SERIALIZER": serializer, "SANDBOX_SYNC_TRANSPORT": "grpc"}
    started = worker(pool, counted_server, redis_url, tmp_path, **settings)
    with started as running, client(redis_url, result_serializer=serializer) as app:
        party = tmp_path / "party"
        party.mkdir()
        assert len(meeting(app, party)) == 2
        with pytest.raises(CommandExitException, match="exit code 3") as raised:
            got(app.send_task("fail", serializer=serializer))
        if serializer == "pickle":
            assert (raised.value.exit_code, raised.value.stderr) == (3, "why\n")
        if pool != "prefork":
            with pytest.raises(DeadlineExceededException):
                got(app.send_task("hang", soft_time_limit=1))
        wait_until_none_is_left()
        last = app.send_task("linger", [2])
        wait_for(ids, "the last task's sandbox")
        running.send_signal(signal.SIGTERM)
        assert got(last) == "done\n"
        assert running.wait(PATIENCE) == 0
    assert ids() == set()


def test_the_example_runs_as_its_text_says(prefork: Celery) -> None:
    ended = subprocess.run(
        [sys.executable, str(EXAMPLE / "app.py"), "import sys; print(6 * 7); sys.exit(5)"],
        env={"PATH": "", "REDIS_URL": prefork.conf.broker_url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("42\n", "", 5)


def eager(**conf: object) -> tuple[Celery, SimpleNamespace]:
    """An app without a worker, and tasks of it."""
    app = Celery("eager", set_as_current=False)
    app.conf.update(**conf)

    @app.task(bind=True, base=SandboxTask, name="inner")
    def inner(self: SandboxTask) -> str:
        return self.sandbox.sandbox_id

    @app.task(bind=True, base=SandboxTask, name="outer")
    def outer(self: SandboxTask) -> list[str]:
        apart: AsyncResult[str] = inner.apply()
        return [self.sandbox.sandbox_id, inner(), apart.get(disable_sync_subtasks=False)]

    return app, SimpleNamespace(inner=inner, outer=outer)


def test_a_task_that_is_called_shares_the_sandbox_and_one_that_is_applied_does_not() -> None:
    _, tasks = eager(task_eager_propagates=True)
    mine, called, applied = tasks.outer.apply().get()
    assert mine == called != applied
    assert ids() == set()
    with pytest.raises(InvalidArgumentException, match=r"no task runs; inner\.apply\(\) runs it"):
        tasks.inner()


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"sandbox_timeout": "60"}, "sandbox_timeout takes whole seconds above 0"),
        ({"sandbox_templte": "base"}, "sandbox_templte is no setting"),
    ],
)
def test_a_wrong_setting_is_named(conf: dict[str, object], words: str) -> None:
    app, _ = eager(**conf)
    with pytest.raises(InvalidArgumentException, match=words):
        app.finalize()


def test_settings_are_found_under_a_namespace() -> None:
    app, tasks = eager()
    settings = SimpleNamespace(CELERY_SANDBOX_TIMEOUT=90, CELERY_SANDBOX_LOCAL=True, SANDBOX={"TIMEOUT": 1})
    app.config_from_object(settings, namespace="CELERY")
    assert tasks.inner.sandbox_settings.options == {"timeout": 90, "domain": "local"}


def test_every_model_comes_out_of_json_as_it_went_in() -> None:
    now = datetime.now(timezone.utc)
    entry = EntryInfo("n", FileType.DIR, "/n", 1, 0o755, "drwxr-xr-x", "user", "user", now, None, {"a": "b"})
    info = SandboxInfo("i", "t", None, {"k": "v"}, now, now, SandboxState.PAUSED, 2, 512, "0.1.0")
    given = [
        CommandResult("e", "o", 1, "x", True),
        entry,
        replace(entry, type=None),
        FilesystemEvent("n", FilesystemEventType.RENAME, entry),
        info,
        replace(info, state="a new one"),
        ProcessInfo(1, None, "sh", ["-c"], {"A": "B"}, "/"),
        WriteInfo("n", FileType.FILE, "/n"),
    ]
    back = loads(dumps(given))
    assert back == given
    assert [type(one) for one in back] == [type(one) for one in given]
    assert back[1].type is FileType.DIR


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_every_exception_arrives_with_its_class_and_text(serializer: str) -> None:
    app = Celery("memory", backend="cache+memory://", set_as_current=False)
    app.conf.update(result_serializer=serializer, result_accept_content=[serializer])
    kinds: list[Any] = [
        kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, SandboxException)
    ]
    assert len(kinds) > 20
    for kind in kinds:
        app.backend.store_result("id", kind("what happened"), "FAILURE")
        arrived = app.AsyncResult("id").result
        assert type(arrived) is kind
        assert str(arrived) == "what happened"
        app.backend.forget("id")
