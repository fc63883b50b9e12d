"""The promises that programs prove: the rows of the table in docs/guarantees.md."""

from __future__ import annotations

from dataclasses import dataclass

FORK = "Fork"
WEB = "Web servers and test runners"
GREEN = "gevent and eventlet"
SIGNALS = "Signals"
THREADS = "Threads"
PICKLE = "Pickle and copy"
EXIT = "Exit"
JOBS = "Batch jobs"
CELERY = "Celery"


@dataclass(frozen=True)
class Promise:
    """One row of the table.

    Args:
        section: What it is about; a heading in the table.
        says: The promise, in the words of the table. No two rows have the same.
        program: The file in programs/ that tries it, without ".py".
        arguments: What the program is given: the variant.
        limit: Seconds after which a program that has not ended counts as hung.
        test: The test that holds our transports to it: a file in this directory, "::", its function.
    """

    section: str
    says: str
    program: str
    arguments: tuple[str, ...] = ()
    limit: float = 15.0
    test: str = ""

    def __str__(self) -> str:
        return "-".join((self.program, *self.arguments))


PROMISES: tuple[Promise, ...] = (
    Promise(
        FORK,
        "A child of `os.fork` works at once, with the same object and a new one, after REST calls before it",
        "forks",
        ("rest",),
        test="test_forks.py::test_a_forked_process_works",
    ),
    Promise(
        FORK,
        "… after a command",
        "forks",
        ("run",),
        test="test_forks.py::test_a_forked_process_works",
    ),
    Promise(
        FORK,
        "… with a command in the background",
        "forks",
        ("background",),
        test="test_forks.py::test_a_forked_process_works",
    ),
    Promise(
        FORK,
        "… with a watch, and a callback if there can be one",
        "forks",
        ("watch",),
        test="test_forks.py::test_a_forked_process_works",
    ),
    Promise(
        FORK,
        "… with an open terminal",
        "forks",
        ("pty",),
        test="test_forks.py::test_a_forked_process_works",
    ),
    Promise(
        FORK,
        "A process of multiprocessing works with a `Sandbox` as its argument: fork",
        "forks",
        ("fork",),
        test="test_forks.py::test_a_forked_process_works",
    ),
    Promise(
        FORK,
        "… forkserver",
        "forks",
        ("forkserver",),
        test="test_forks.py::test_a_forked_process_works",
    ),
    Promise(
        FORK,
        "… spawn",
        "forks",
        ("spawn",),
        test="test_forks.py::test_a_forked_process_works",
    ),
    Promise(
        FORK,
        "… and so do the workers of a `ProcessPoolExecutor`",
        "forks",
        ("executor",),
        test="test_forks.py::test_a_forked_process_works",
    ),
    Promise(
        FORK,
        "The parent's output comes whole, though children use the sandbox meanwhile and exit",
        "forks",
        ("stream",),
        test="test_forks.py::test_a_forked_process_works",
    ),
    Promise(
        FORK,
        "A child that leaves a `with` of its parent's kills nothing",
        "forks",
        ("with",),
        test="test_forks.py::test_a_forked_process_works",
    ),
    Promise(
        FORK,
        "… nor does one that exits, or drops what it has inherited",
        "forks",
        ("exit",),
        test="test_forks.py::test_a_forked_process_works",
    ),
    Promise(
        FORK,
        "Children work that are forked while a thread is inside a call, 20 times",
        "forks",
        ("calls",),
        test="test_forks.py::test_a_forked_process_works",
    ),
    Promise(
        FORK,
        "… and while output streams, 20 times",
        "forks",
        ("streaming",),
        test="test_forks.py::test_a_forked_process_works",
    ),
    Promise(
        FORK,
        "A child has none of its parent's sockets",
        "forks",
        ("sockets",),
        test="test_forks.py::test_a_forked_process_works",
    ),
    Promise(
        WEB,
        "gunicorn: two workers answer, each with what the caller asked for",
        "webs",
        ("sync", "answers"),
        limit=50,
        test="test_web.py::test_preforked_workers_answer",
    ),
    Promise(
        WEB,
        "… with `--preload`, after calls in the first process",
        "webs",
        ("sync-preload", "answers"),
        limit=50,
        test="test_web.py::test_preforked_workers_answer",
    ),
    Promise(
        WEB,
        "… and with `--preload --threads 4`",
        "webs",
        ("gthread-preload", "answers"),
        limit=50,
        test="test_web.py::test_preforked_workers_answer",
    ),
    Promise(
        WEB,
        "… and with `-k gevent`",
        "webs",
        ("gevent", "answers"),
        limit=50,
        test="test_web.py::test_preforked_workers_answer",
    ),
    Promise(
        WEB,
        "… and with `-k gevent --preload`",
        "webs",
        ("gevent-preload", "answers"),
        limit=50,
        test="test_web.py::test_preforked_workers_answer",
    ),
    Promise(
        WEB,
        "uWSGI: two workers answer that were forked after calls in the first process",
        "webs",
        ("uwsgi", "answers"),
        limit=50,
        test="test_web.py::test_preforked_workers_answer",
    ),
    Promise(
        WEB,
        "… and with `--lazy-apps`",
        "webs",
        ("uwsgi-lazy", "answers"),
        limit=50,
        test="test_web.py::test_preforked_workers_answer",
    ),
    Promise(
        WEB,
        "So do those of a server of the standard library that imports the app, then forks",
        "webs",
        ("prefork", "answers"),
        limit=50,
        test="test_web.py::test_preforked_workers_answer",
    ),
    Promise(
        WEB,
        "SIGTERM to `gunicorn --preload` in a request: it is answered, all ends, and no command runs on",
        "webs",
        ("sync-preload", "stop"),
        limit=50,
        test="test_web.py::test_servers_end_well",
    ),
    Promise(
        WEB,
        "… and to uWSGI",
        "webs",
        ("uwsgi", "stop"),
        limit=50,
        test="test_web.py::test_servers_end_well",
    ),
    Promise(
        WEB,
        "A worker that `gunicorn --timeout` ends leaves no command running, and the next one answers",
        "webs",
        ("sync-preload", "timeout"),
        limit=50,
        test="test_web.py::test_servers_end_well",
    ),
    Promise(
        WEB,
        "pytest runs tests in forked children after a fixture of the session has used the SDK",
        "forking",
        limit=30,
        test="test_web.py::test_forked_tests_pass",
    ),
    Promise(
        GREEN,
        "gevent: 100 `run` of 1 s at once end within 2 s",
        "greens",
        ("gevent",),
        limit=80,
        test="test_greens.py::test_a_hundred_run_at_once",
    ),
    Promise(
        GREEN,
        "eventlet: the same",
        "greens",
        ("eventlet",),
        limit=80,
        test="test_greens.py::test_a_hundred_run_at_once",
    ),
    Promise(
        GREEN,
        "gunicorn `-k gevent`: 100 requests that run 1 s each end within 2 s",
        "webs",
        ("gevent", "hundred"),
        limit=80,
        test="test_greens.py::test_a_hundred_run_at_once",
    ),
    Promise(
        SIGNALS,
        "Ctrl-C is felt within 0.2 s in `commands.run`",
        "interrupts",
        ("run",),
        test="test_interrupts.py::test_a_signal_is_felt",
    ),
    Promise(
        SIGNALS,
        "… in `wait` of a background command",
        "interrupts",
        ("wait",),
        test="test_interrupts.py::test_a_signal_is_felt",
    ),
    Promise(
        SIGNALS,
        "… and SIGALRM in `commands.run`",
        "interrupts",
        ("alarm",),
        test="test_interrupts.py::test_a_signal_is_felt",
    ),
    Promise(
        SIGNALS,
        "A `run` that Ctrl-C interrupts leaves no command running",
        "interrupts",
        ("left",),
        test="test_interrupts.py::test_a_signal_is_felt",
    ),
    Promise(
        SIGNALS,
        "KeyboardInterrupt arrives also when the call ends in a timeout",
        "interrupts",
        ("timeout",),
        test="test_interrupts.py::test_a_signal_is_felt",
    ),
    Promise(
        SIGNALS,
        "The program's own handler of SIGTERM runs within 0.2 s in `commands.run`",
        "interrupts",
        ("term",),
        test="test_interrupts.py::test_a_signal_is_felt",
    ),
    Promise(
        SIGNALS,
        "… and that of SIGHUP",
        "interrupts",
        ("hup",),
        test="test_interrupts.py::test_a_signal_is_felt",
    ),
    Promise(
        SIGNALS,
        "No signal handler is installed or taken away",
        "handlers",
        test="test_interrupts.py::test_handlers_are_left_alone",
    ),
    Promise(
        THREADS,
        "64 threads share one sandbox, each gets its own answers",
        "threads",
        ("shared",),
        test="test_threads.py::test_threads_share_a_sandbox",
    ),
    Promise(
        THREADS,
        "40 parallel `run` of 1 s end within 5 s",
        "threads",
        ("parallel",),
        test="test_threads.py::test_threads_share_a_sandbox",
    ),
    Promise(
        THREADS,
        "A callback may call back into the SDK",
        "threads",
        ("callback",),
        test="test_threads.py::test_threads_share_a_sandbox",
    ),
    Promise(
        THREADS,
        "A handle can be killed from another thread while one waits",
        "threads",
        ("kill",),
        test="test_threads.py::test_threads_share_a_sandbox",
    ),
    Promise(
        PICKLE,
        "Results, infos and entries",
        "pickles",
        ("models",),
        test="test_pickles.py::test_what_the_sdk_gives_travels",
    ),
    Promise(
        PICKLE,
        "Exceptions",
        "pickles",
        ("errors",),
        test="test_pickles.py::test_what_the_sdk_gives_travels",
    ),
    Promise(
        PICKLE,
        "A `Sandbox`, without its key",
        "pickles",
        ("sandbox",),
        test="test_pickles.py::test_what_the_sdk_gives_travels",
    ),
    Promise(
        PICKLE,
        "A `Sandbox` as the argument of a worker process, and its result back",
        "pickles",
        ("worker",),
        test="test_pickles.py::test_what_the_sdk_gives_travels",
    ),
    Promise(
        PICKLE,
        "An exception of a worker process, with exit code and output",
        "pickles",
        ("failure",),
        test="test_pickles.py::test_what_the_sdk_gives_travels",
    ),
    Promise(
        EXIT,
        "An abandoned background command does not hold up the end, and prints nothing",
        "ends",
        ("handle",),
        test="test_ends.py::test_nothing_holds_up_the_end",
    ),
    Promise(
        EXIT,
        "… nor does an abandoned watcher",
        "ends",
        ("watch",),
        test="test_ends.py::test_nothing_holds_up_the_end",
    ),
    Promise(
        EXIT,
        "… nor a `with` whose body exits with a command running",
        "ends",
        ("with",),
        test="test_ends.py::test_nothing_holds_up_the_end",
    ),
    Promise(
        EXIT,
        "A `with` whose sandbox cannot be killed hides no error of its body",
        "ends",
        ("hidden",),
        test="test_ends.py::test_nothing_holds_up_the_end",
    ),
    Promise(
        JOBS,
        "A job that is killed (SIGKILL) leaks its sandbox for seconds",
        "jobs",
        ("killed",),
        test="test_jobs.py::test_a_job_has_an_end",
    ),
    Promise(
        JOBS,
        "`with deadline(0.5)` ends runs, waits and iterations in it",
        "jobs",
        ("late",),
        test="test_jobs.py::test_a_job_has_an_end",
    ),
    Promise(
        CELERY,
        "After calls in a prefork worker's parent, its tasks answer, with the same sandbox and new ones",
        "celery_prefork",
        limit=60,
        test="test_celery.py::test_tasks_in_forked_processes_answer",
    ),
)


def promises_of(test: str) -> list[Promise]:
    """The rows that a test stands for, by the name that they give it."""
    found = [promise for promise in PROMISES if promise.test == test]
    assert found, f"no promise names {test}"
    return found
