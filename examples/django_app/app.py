"""A Django app that runs Python in a sandbox: `gunicorn --chdir examples/django_app app:application`.

`python examples/django_app/app.py check` and the other commands of Django work as well.
"""

from __future__ import annotations

import json
import os
import shlex
import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.management.utils import get_random_secret_key
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.http import require_POST

from sandbox_sync.contrib.django import SandboxRequest, stream

settings.configure(
    SECRET_KEY=get_random_secret_key(),
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["sandbox_sync.contrib.django.SandboxConfig"],
    MIDDLEWARE=["sandbox_sync.contrib.django.SandboxMiddleware"],
    # SANDBOX_LOCAL=1: on this machine. Otherwise E2B_API_KEY and its like say where.
    SANDBOX={"LOCAL": os.environ.get("SANDBOX_LOCAL") == "1", "DEADLINE": 30},
)


@require_POST
def run(request: SandboxRequest) -> JsonResponse:
    """Run the code in {"code": ...} and answer with what it printed."""
    request.sandbox.files.write("main.py", json.loads(request.body)["code"])
    result = request.sandbox.commands.run("python3 main.py", timeout=10, check=False)
    return JsonResponse({"stdout": result.stdout, "stderr": result.stderr, "exit_code": result.exit_code})


@require_POST
def live(request: SandboxRequest) -> StreamingHttpResponse:
    """Run the code in {"code": ...} and answer with its output as it arrives."""
    code = json.loads(request.body)["code"]
    return stream(request, f"python3 -u -c {shlex.quote(code)}", timeout=30)


urlpatterns = [path("run", run), path("stream", live)]

application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
