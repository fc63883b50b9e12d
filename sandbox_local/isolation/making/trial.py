"""Finding out by trial what the kernel allows."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import ParamSpec

from sandbox_local.isolation import syscalls

_Arguments = ParamSpec("_Arguments")


def works(step: Callable[_Arguments, object], *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> bool:
    """Whether a step succeeds; done by a child in a mount namespace of its own, so that nothing stays."""
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.unshare(syscalls.CLONE_NEWNS)
            step(*args, **kwargs)
            os._exit(0)
        except OSError:
            pass
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0
