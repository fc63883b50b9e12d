"""What the SDK gives survives pickle and copy.

usage: pickles.py models|errors|sandbox
"""

from __future__ import annotations

import copy
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any

from client import Sandbox, report, sandbox

variant = sys.argv[1]
box = sandbox()


def copies(value: Any) -> Iterator[Any]:
    yield copy.copy(value)
    yield copy.deepcopy(value)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield pickle.loads(pickle.dumps(value, protocol))


try:
    if variant == "models":
        values = [box.commands.run("true"), Sandbox.get_info(box.sandbox_id), *box.files.list("/")[:1]]
        report(all(repr(c) == repr(v) for v in values for c in copies(v)), "equal after each")
    elif variant == "errors":
        values = []
        calls: list[Callable[[], Any]] = [
            lambda: box.commands.run("exit 3"),
            lambda: box.files.read("/none"),
        ]
        for call in calls:
            try:
                call()
            except Exception as error:  # noqa: BLE001  # which one is not the point
                values.append(error)
        same = all(type(c) is type(v) and str(c) == str(v) for v in values for c in copies(v))
        report(same and len(values) == 2, "same class and text after each")
    else:
        if os.environ["E2B_API_KEY"].encode() in pickle.dumps(box):
            report(False, "the key is in it")
        works = all(c.commands.run("echo x").stdout == "x\n" for c in copies(box))
        report(works, "each copy runs commands; no key in it")
except (TypeError, AttributeError, pickle.PicklingError) as error:
    report(False, f"{type(error).__name__}: {error}"[:80])
