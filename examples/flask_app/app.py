"""A Flask app that runs Python in a sandbox: `gunicorn --chdir examples/flask_app app:app`."""

from __future__ import annotations

import os
import shlex

from flask import Flask, Response, request

from sandbox_sync.contrib.flask import Sandboxes

app = Flask(__name__)
# SANDBOX_LOCAL=1: on this machine. Otherwise E2B_API_KEY and its like say where.
app.config.update(SANDBOX_LOCAL=os.environ.get("SANDBOX_LOCAL") == "1", SANDBOX_DEADLINE=30)
sandboxes = Sandboxes(app)


@app.post("/run")
def run() -> dict[str, object]:
    """Run the code in {"code": ...} and answer with what it printed."""
    sandbox = sandboxes.current
    sandbox.files.write("main.py", request.get_json()["code"])
    result = sandbox.commands.run("python3 main.py", timeout=10, check=False)
    return {"stdout": result.stdout, "stderr": result.stderr, "exit_code": result.exit_code}


@app.post("/stream")
def stream() -> Response:
    """Run the code in {"code": ...} and answer with its output as it arrives."""
    return sandboxes.stream(f"python3 -u -c {shlex.quote(request.get_json()['code'])}", timeout=30)
