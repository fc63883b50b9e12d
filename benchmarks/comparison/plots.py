"""How cost grows, drawn: a file for each axis, as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_LOOKS = {"connect": ("C0", "o"), "grpc": ("C1", "s"), "official": ("C3", "^")}
_NAMES = {
    "list_sandboxes": "all listed",
    "crowd": "started, and waited for",
    "file_up": "up",
    "file_down": "down, streamed",
}


def draw(axis: dict[str, Any], directory: Path) -> Path:
    """Draw an axis of growth; the thin line is what would be in proportion."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    # The same numbers give the same file, and text stays text, which is small.
    plt.rcParams.update({"svg.hashsalt": "sandbox-sync", "svg.fonttype": "none", "font.size": 9})
    panels = _panels(axis)
    figure, plots = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3), squeeze=False)
    for plot, (title, key, lines) in zip(plots[0], panels, strict=True):
        for line in lines:
            color, marker = _LOOKS[line["side"]]
            counts = [point["count"] for point in line["points"]]
            values = [point[key] for point in line["points"]]
            plot.plot(counts, values, color=color, marker=marker, markersize=4, label=line["side"])
        last = lines[0]["points"][-1]
        start = max(last[key], 1e-9) / last["count"]
        plot.plot(counts, [start * count for count in counts], color="0.7", linewidth=0.7, zorder=0)
        plot.set(xscale="log", yscale="log", xlabel=axis["title"], title=title)
        plot.grid(alpha=0.3)
    plots[0][0].legend()
    figure.tight_layout()
    file = directory / f"{axis['key']}.svg"
    directory.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
    file.write_text("".join(f"{line.rstrip()}\n" for line in file.read_text().splitlines()))
    return file


def _panels(axis: dict[str, Any]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """What is drawn side by side: title, the key of the points' values, lines."""
    panels = []
    for action in dict.fromkeys(line["action"] for line in axis["lines"]):
        lines = [line for line in axis["lines"] if line["action"] == action]
        panels.append((f"{_NAMES[action]}, seconds", "median_s", lines))
        if "threads" in lines[0]["points"][0]:
            panels.append(("memory held, MiB", "held_mib", lines))
            panels.append(("threads", "threads", lines))
    return panels
