"""Runs a program of the documents, which comes as JSON, and marks the ends of its blocks."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import Any

program = json.load(sys.stdin)
names: dict[str, Any] = {"__name__": "__main__"}
with ExitStack() as stack:
    if program["prepare"] is not None:
        from sandbox_sync import Sandbox

        names["sandbox"] = stack.enter_context(Sandbox.create())
        names["sandbox"].commands.run(program["prepare"])
    for line, code in program["blocks"]:
        exec(compile("\n" * line + code, program["page"], "exec", dont_inherit=True), names)
        sys.stdout.write(program["mark"] + "\n")
