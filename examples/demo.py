"""Real work in a real sandbox on this machine, step by step, with what each step took.

Run it with scripts/demo, or with the project installed: python examples/demo.py
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox_sync import Sandbox

DATA = Path(__file__).parent / "data" / "co2.csv"

ANALYSIS = """
import csv, json, statistics, sys, time
rows = [(int(row["year"]), float(row["ppm"])) for row in csv.DictReader(open("data/co2.csv"))]
decades = {}
for year, ppm in rows:
    decades.setdefault(year // 10 * 10, []).append(ppm)
for decade, values in decades.items():
    mean = statistics.fmean(values)
    print(f"{decade}s  {mean:7.2f} ppm  {'#' * int((mean - 300) / 2)}", flush=True)
    time.sleep(0.1)
years, ppms = zip(*rows)
slope, _ = statistics.linear_regression(years[-20:], ppms[-20:])
json.dump({"rows": len(rows), "ppm_per_year": round(slope, 2)}, open("result.json", "w"))
print(f"rise over the last 20 years: {slope:.2f} ppm a year", file=sys.stderr)
"""

PROGRAM = r"""
#include <stdio.h>
int main(void) {
    int year; double ppm, last = 0, most = 0; int when = 0;
    while (scanf("%d,%lf", &year, &ppm) == 2) {
        if (last && ppm - last > most) { most = ppm - last; when = year; }
        last = ppm;
    }
    printf("steepest year: %d, +%.2f ppm\n", when, most);
}
"""

took: list[tuple[str, float]] = []


@contextmanager
def step(title: str) -> Iterator[None]:
    print(f"\n\033[1m{title}\033[0m" if sys.stdout.isatty() else f"\n== {title}", flush=True)
    start = time.perf_counter()
    yield
    took.append((title, time.perf_counter() - start))


def show(text: str) -> None:
    """Print output of the sandbox as it arrives, set off from our own."""
    for line in text.splitlines():
        print(f"   | {line}", flush=True)


def main() -> None:
    # Without a key and without this, the SDK would ask for one: "local" is this machine's own server.
    if not os.environ.get("E2B_API_KEY"):
        os.environ.setdefault("E2B_DOMAIN", "local")

    with step("Create a sandbox"):
        sandbox = Sandbox.create(timeout=120, metadata={"purpose": "demo"})
        print(f"   {sandbox.sandbox_id}")

    with sandbox:
        with step("Upload a data file"):
            written = sandbox.files.write("data/co2.csv", DATA.read_bytes())
            print(f"   {DATA.name} -> {written.path}, {DATA.stat().st_size} bytes")

        with step("Analyse it with Python, output live"):
            sandbox.files.write("analysis.py", ANALYSIS)
            sandbox.commands.run("python3 analysis.py", on_stdout=show, on_stderr=show)

        with step("Compile and run a C program, or a shell pipeline where there is no compiler"):
            sandbox.files.write("steepest.c", PROGRAM)
            sandbox.commands.run(
                "if command -v cc >/dev/null; then"
                "  cc -O2 -o steepest steepest.c && tail -n +2 data/co2.csv | ./steepest;"
                " else"
                "  tail -n +2 data/co2.csv | awk -F,"
                " 'NR > 1 && $2 - last > most { most = $2 - last; year = $1 } { last = $2 }"
                ' END { printf "steepest year: %d, +%.2f ppm\\n", year, most }\';'
                " fi",
                on_stdout=show,
                on_stderr=show,
            )

        with step("Feed a background command through its standard input"):
            upper = sandbox.commands.run(
                'while read -r line; do echo "${line^^}"; done; echo "end of input"',
                background=True,
                stdin=True,
                on_stdout=show,
            )
            for line in ("every call blocks", "no event loop in sight"):
                upper.send_stdin(line + "\n")
            upper.close_stdin()
            print(f"   pid {upper.pid} exited with {upper.wait().exit_code}")

        with step("List what is there now"):
            for entry in sandbox.files.list(".", depth=2):
                print(f"   {entry.permissions} {entry.owner:>5} {entry.size:>7}  {entry.path}")

        with step("Download the result"), tempfile.TemporaryDirectory() as directory:
            result = Path(directory, "result.json")
            result.write_bytes(sandbox.files.read("result.json", format="bytes"))
            print(f"   {result.name}: {result.read_text()}")

        with step("Look for the host from inside, as the sandbox's root"):
            with tempfile.NamedTemporaryFile(prefix="host-secret-") as secret:
                found = sandbox.commands.run(
                    f"ls -d {secret.name} {Path.home()}/* 2>/dev/null | wc -l; ls -d /proc/[0-9]* | wc -l",
                    user="root",
                ).stdout.split()
            host_processes = sum(name.isdigit() for name in os.listdir("/proc"))
            print(f"   files of the host that it sees: {found[0]}")
            print(f"   processes that it sees: {found[1]}, on the host: {host_processes}")
            if found[0] != "0" or int(found[1]) > 10:
                raise SystemExit("the sandbox sees the host")

    print("\nWhat each step took:")
    for title, seconds in took:
        print(f"   {seconds * 1000:8.1f} ms  {title}")
    print("   The sandbox is gone; the local server goes by itself when idle.")


if __name__ == "__main__":
    main()
