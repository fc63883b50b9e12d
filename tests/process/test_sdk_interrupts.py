"""Signal handlers that raise, wherever they strike in what waits for other threads and what starts them."""

from __future__ import annotations

from tests.process.sdk_program import Outcome, finish, start, succeeds

# Strikes the main thread again and again, a little later each time, and then from the beginning.
STRIKES = """
import itertools, signal

class Rang(Exception):
    pass

def ring(*ignored):
    raise Rang

signal.signal(signal.SIGALRM, ring)

def strike(work, delays):
    '''How often it was done when a signal struck. What comes out of it has to be what the handler raised.'''
    done = 0
    try:
        signal.setitimer(signal.ITIMER_REAL, next(delays))
        while True:
            work()
            done += 1
    except Rang:
        return done
"""


def test_threads_start_or_not_whatever_strikes() -> None:
    """G41: what the handler raised comes out, no thread hangs as it begins, and the next one starts."""
    program = """
        from sandbox_sync.transport import threads
        ran, started = [], 0
        delays = itertools.cycle(number * 1e-5 for number in range(1, 100))
        for _ in range(2000):
            started += strike(lambda: threads.start("counts", ran.append, None), delays)
        assert started > 100, started
        end = time.monotonic() + 10
        while len(ran) < started or any(thread.name == "counts" for thread in threading.enumerate()):
            assert time.monotonic() < end, (len(ran), started, threading.enumerate())
            time.sleep(0.01)
    """
    succeeds(program, before=STRIKES)


def test_waits_leave_nothing_locked_whatever_strikes() -> None:
    """G41: what the handler raised comes out, and who waits and who tells go on."""
    program = """
        from sandbox_sync.deadlines import Deadline
        from sandbox_sync.transport.conditions import Condition
        changed, never = Condition(), Deadline.after(None)
        def tell():
            while True:
                with changed.lock:
                    changed.notify_all()
                time.sleep(0)
        threading.Thread(target=tell, daemon=True).start()
        news = 0
        delays = itertools.cycle(number * 2e-6 for number in range(5, 100))
        for _ in range(2000):
            news += strike(lambda: changed.wait_beyond(changed.count, never), delays)
        assert news > 100, news
        assert changed.wait_beyond(changed.count, Deadline.after(10))
        with changed.lock:
            changed.notify_all()
            assert not changed._waiters
    """
    succeeds(program, before=STRIKES)


def test_what_a_signal_cuts_short_as_it_is_made_goes_silently() -> None:
    """G41: it has nothing to end yet."""
    program = """
        from sandbox_sync.transport.grpc import _Line
        from sandbox_sync.transport.http1 import Answer
        for kind in (Answer, _Line):
            kind.__new__(kind)
    """
    assert finish(start(program)) == Outcome(0, "", "")
