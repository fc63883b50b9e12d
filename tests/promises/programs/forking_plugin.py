"""A plugin of pytest that runs the tests marked "forked" in a child each, as pytest-forked does.

pytest-forked itself works with no pytest from 9.1 on.
"""

from __future__ import annotations

import json
import os
import tempfile

import pytest
from _pytest.runner import runtestprotocol


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "forked: run the test in a child.")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a test, and report what the child says of it."""
    if item.get_closest_marker("forked") is None:
        return None
    hook = item.config.hook
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    with tempfile.TemporaryFile("w+") as said:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for report in runtestprotocol(item, log=False):
                    line = hook.pytest_report_to_serializable(config=item.config, report=report)
                    said.write(json.dumps(line) + "\n")
                said.flush()
                code = 0
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said.seek(0)
        for line in said:
            report = hook.pytest_report_from_serializable(config=item.config, data=json.loads(line))
            item.ihook.pytest_runtest_logreport(report=report)
    assert code == 0, f"the child ended with {code}"
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
