"""Our client on each transport and the official client, on the same embedded server, in one run.

Rounds are interleaved, so that a machine whose speed drifts is the same one for everyone. Quote the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sandbox_local import LocalServer

MIB = os.urandom(1 << 20)


def import_seconds(module: str, then: str = "") -> float:
    """Wall time of a Python that imports `module`, less that of one that imports nothing."""

    def run(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    return run(f"import {module}\n{then}") - run("pass")


class Client:
    """One client: a Sandbox class, and the options that point it at the server."""

    def __init__(self, sandbox: Any, options: dict[str, Any]) -> None:
        self.sandbox, self.options = sandbox, options
        self.warm = sandbox.create(timeout=3600, **options)

    def create(self) -> float:
        start = time.perf_counter()
        sandbox = self.sandbox.create(timeout=60, **self.options)
        took = time.perf_counter() - start
        sandbox.kill()
        return took

    def run_true(self) -> float:
        start = time.perf_counter()
        self.warm.commands.run("true")
        return time.perf_counter() - start

    def write_mib(self) -> float:
        start = time.perf_counter()
        self.warm.files.write("benchmark.bin", MIB)
        return time.perf_counter() - start

    def read_mib(self) -> float:
        start = time.perf_counter()
        data = self.warm.files.read("benchmark.bin", format="bytes")
        took = time.perf_counter() - start
        assert bytes(data) == MIB
        return took


MEASURED = {
    "create": Client.create,
    'run("true")': Client.run_true,
    "write 1 MiB": Client.write_mib,
    "read 1 MiB": Client.read_mib,
}


def measure(server: LocalServer, rounds: int) -> dict[str, dict[str, list[float]]]:
    import e2b

    import sandbox_sync

    base = {
        "api_key": server.api_key,
        "api_url": server.env["E2B_API_URL"],
        "sandbox_url": server.env["E2B_SANDBOX_URL"],
    }
    clients = {
        "connect": Client(sandbox_sync.Sandbox, {**base, "transport": "connect"}),
        "grpc": Client(sandbox_sync.Sandbox, {**base, "transport": "grpc"}),
        "official": Client(e2b.Sandbox, base),
    }
    samples: dict[str, dict[str, list[float]]] = {
        name: {client: [] for client in clients} for name in MEASURED
    }
    for _ in range(rounds):
        for name, once in MEASURED.items():
            for label, client in clients.items():
                samples[name][label].append(once(client))
    for client in clients.values():
        client.warm.kill()
    return samples


def measure_imports(rounds: int) -> dict[str, dict[str, list[float]]]:
    alone: dict[str, list[float]] = {"connect": [], "official": []}
    used: dict[str, list[float]] = {"connect": [], "official": []}
    for _ in range(rounds):
        for label, module in (("connect", "sandbox_sync"), ("official", "e2b")):
            alone[label].append(import_seconds(module))
            used[label].append(import_seconds(module, f"{module}.Sandbox"))
    return {"import": alone, "import, Sandbox looked up": used}


def table(samples: dict[str, dict[str, list[float]]]) -> str:
    lines = [
        "| median (p99), ms | connect | grpc | official | connect / official | grpc / official |",
        "|---|---|---|---|---|---|",
    ]
    for name, clients in samples.items():
        cells, ratios = [], []
        for label in ("connect", "grpc", "official"):
            times = sorted(clients.get(label, []))
            if not times:
                cells.append("")
                ratios.append("")
                continue
            median, p99 = statistics.median(times), times[min(len(times) - 1, len(times) * 99 // 100)]
            cells.append(f"{median * 1000:.2f} ({p99 * 1000:.2f})")
            ratios.append(f"{median / statistics.median(clients['official']):.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} | {ratios[0]} | {ratios[1]} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100, help="interleaved rounds (default 100)")
    parser.add_argument("--json", type=Path, help="also write every sample, in seconds, to this file")
    arguments = parser.parse_args()

    samples = measure_imports(max(5, arguments.rounds // 10))
    with LocalServer() as server:
        samples.update(measure(server, arguments.rounds))
    print(table(samples))
    if arguments.json:
        arguments.json.write_text(json.dumps(samples))


if __name__ == "__main__":
    main()
