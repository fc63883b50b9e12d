"""The process of one side. It reads requests, lines of JSON, and answers each with a line of what it cost.

Usage: python -m sides.worker, with {"side": ..., "place": {...}, "sizes": {...}} as the first line.
"""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any

from sides.functions import spent
from sides.place import Place, Sizes
from sides.usage import measured


def side_of(name: str, place: Place, sizes: Sizes) -> Any:
    """A side by its name; only its own modules are imported."""
    if name == "floor":
        from sides.floor import Floor

        return Floor(place, sizes)
    if name.startswith("official"):
        from sides.official import Official

        return Official(place, sizes, 0.1 if name == "official at leisure" else 0.0)
    from sides.ours import Ours

    return Ours(name, place, sizes)


def main() -> None:
    requests, answers = sys.stdin, sys.stdout
    sys.stdout = sys.stderr  # whatever is printed must not be taken for an answer
    told = json.loads(requests.readline())
    side = side_of(told["side"], Place(**told["place"]), Sizes(**told["sizes"]))
    print("{}", file=answers, flush=True)
    try:
        for line in requests:
            request = json.loads(line)
            name = request["action"]
            try:
                if "sizes" in request:
                    side.sizes = Sizes(**request["sizes"])
                ready = getattr(side, f"ready_{name}", None)
                if ready is not None:
                    ready()
                action, times = getattr(side, name), request["times"]
                profiled = request.get("profile", False)
                answer: dict[str, Any] = (
                    {"functions": spent(action, times)} if profiled else dict(measured(action, times))
                )
            except Exception:  # noqa: BLE001 - the driver says it
                answer = {"error": traceback.format_exc()}
            print(json.dumps(answer), file=answers, flush=True)
    finally:
        side.close()


if __name__ == "__main__":
    main()
