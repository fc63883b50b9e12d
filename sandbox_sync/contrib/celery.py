"""Sandboxes in Celery: settings from the app's configuration, one sandbox per task, results that travel."""

from __future__ import annotations

import contextvars
from dataclasses import fields
from enum import Enum
from typing import TYPE_CHECKING, Any

from billiard.process import current_process
from celery import Celery, Task, signals
from kombu.utils.json import register_type

from sandbox_sync.ambient import deadline
from sandbox_sync.contrib._scope import Scope
from sandbox_sync.contrib._settings import Settings, read
from sandbox_sync.errors import InvalidArgumentException
from sandbox_sync.models import commands, files, sandboxes
from sandbox_sync.sandbox import Sandbox

if TYPE_CHECKING:
    _Task = Task[..., Any]
else:
    _Task = Task

_PREFIX = "sandbox_"


class SandboxTask(_Task):
    """A task with a sandbox: `@app.task(bind=True, base=SandboxTask)`.

    Settings are read from `app.conf`; what is not set there is looked for where `Sandbox.create` looks for
    it. In Django's settings, with the namespace CELERY, they are CELERY_SANDBOX_TEMPLATE and so on:

    - sandbox_template: name or id of the template.
    - sandbox_lease: whole seconds after which a sandbox ends whose worker was killed; 30 when left out.
    - sandbox_timeout: in place of that, the lifetime of a sandbox in whole seconds, which nothing renews.
    - sandbox_deadline: seconds that everything that a task does with sandboxes may take, as in
      `with deadline(...)`.
    - sandbox_request_timeout: timeout in seconds for each call to the service.
    - sandbox_api_key, sandbox_api_url, sandbox_sandbox_url: the service.
    - sandbox_local: True for this machine's own server, in place of those three.

    A soft time limit interrupts whatever waits for a sandbox, with Celery's own exception. In pools other
    than prefork, where Celery does not enforce it, it is a deadline of the SDK.
    """

    abstract = True
    sandbox_settings: Settings
    """What was set, as it was when the task was bound to its app."""

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Read the settings.

        Args:
            app: The app that the task is bound to; its configuration must be complete.

        Raises:
            InvalidArgumentException: A setting is wrong; the message names it.
        """
        super().on_bound(app)
        cls.sandbox_settings = read(_given(app), lambda name: _PREFIX + name)

    @property
    def sandbox(self) -> Sandbox:
        """The task's sandbox. It is made on first use, belongs to this run of the task alone, and is killed
        when that has ended: with a result, an exception or a retry. What the task calls as plain functions,
        other tasks too, shares it.

        Raises:
            InvalidArgumentException: No task runs; `task.apply()` runs one without a worker.
            SandboxException: It could not be made.
        """
        run = _runs.get()
        if run is None:
            raise InvalidArgumentException(
                f"Task {self.name} was called as a function, and no task runs; {self.name}.apply() runs it"
            )
        return run.scope.sandbox()


class _Run:
    """A task that runs."""

    def __init__(self, task: SandboxTask) -> None:
        self.request = task.request
        self.scope = Scope(task.sandbox_settings)
        limits = [task.sandbox_settings.deadline, _unenforced_limit(task)]
        self._deadline = deadline(min((limit for limit in limits if limit), default=None))
        self._outer = _runs.set(self)
        self._deadline.__enter__()

    def end(self) -> None:
        self._deadline.__exit__(None, None, None)
        _runs.reset(self._outer)
        self.scope.end()


_runs = contextvars.ContextVar["_Run | None"]("sandbox_sync_celery_run", default=None)


# Signals, and no `__call__` of the task: that would get in the way of those that other bases have.
@signals.task_prerun.connect(weak=False)
def _begin(task: object = None, **_: Any) -> None:
    if isinstance(task, SandboxTask):
        _Run(task)


@signals.task_postrun.connect(weak=False)
def _end(task: object = None, **_: Any) -> None:
    run = _runs.get()
    if isinstance(task, SandboxTask) and run is not None and run.request is task.request:
        run.end()


@signals.worker_init.connect(weak=False)
def _load(**_: Any) -> None:
    """Load what the first call would: once here, and not again in each process of the pool."""

    import sandbox_sync.inside
    import sandbox_sync.lifecycle  # noqa: F401


def _unenforced_limit(task: SandboxTask) -> float | None:
    """The soft time limit of a task that Celery will not interrupt: only processes of a pool are."""
    if current_process().name != "MainProcess":
        return None
    _, soft = task.request.timelimit or (None, None)
    limit: float | None = soft or task.soft_time_limit or task.app.conf.task_soft_time_limit
    return limit


def _given(app: Celery) -> dict[str, Any]:
    """The settings by our names. An app with a namespace has them under it, in the case of that."""
    namespace = app.conf.prefix or ""
    given = {}
    for key in app.conf:
        name = key[len(namespace) :].lower() if namespace and key.startswith(namespace) else key
        if name.startswith(_PREFIX):
            given[name[len(_PREFIX) :]] = app.conf[name]
    return given


# What Celery's JSON turns back into the SDK's classes. Words of the service that are in no Enum stay texts.
_MODELS: dict[type[Any], dict[str, type[Enum]]] = {
    commands.CommandResult: {},
    files.EntryInfo: {"type": files.FileType},
    files.FilesystemEvent: {"type": files.FilesystemEventType},
    commands.ProcessInfo: {},
    commands.PtySize: {},
    sandboxes.SandboxInfo: {"state": sandboxes.SandboxState},
    sandboxes.SandboxMetrics: {},
    sandboxes.SnapshotInfo: {},
    files.WriteInfo: {"type": files.FileType},
}


def _register(kind: type[Any], words: dict[str, type[Enum]]) -> None:
    def encode(model: Any) -> dict[str, Any]:
        return {field.name: getattr(model, field.name) for field in fields(kind)}

    def decode(values: dict[str, Any]) -> Any:
        known = {field.name for field in fields(kind)}  # a newer worker may tell more
        revived = {name: value for name, value in values.items() if name in known}
        for name, enum in words.items():
            if revived.get(name) in {member.value for member in enum}:
                revived[name] = enum(revived[name])
        return kind(**revived)

    register_type(kind, f"sandbox_sync.{kind.__name__}", encode, decode)


for _kind, _words in _MODELS.items():
    _register(_kind, _words)
