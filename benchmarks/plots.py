"""Draw the points of `benchmarks/scale.py` as SVG, with logarithmic axes.

`python -m benchmarks.plots [FILE [FOLDER]]` reads build/bench/scale.jsonl and writes one figure for
each curve to docs/images. The newest line counts where a point was measured several times.
"""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent
WIDTH, HEIGHT = 360, 240
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 30, 42  # margins around the axes
MARGIN = 0.2  # beyond the outermost points, in the logarithm
INK, PAPER, LINE, GRID = "#222222", "#ffffff", "#1f5fa8", "#dddddd"

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """The words of one curve: those of its x axis, and of its figure of time."""

    x: str
    seconds: str


CURVES = {
    "preparation": Curve("conversations", "CPU seconds of preparation"),
    "night": Curve("conversations", "seconds without the model"),
    "length": Curve("tokens of a row", "CPU seconds of a step of 8 rows"),
    "processes": Curve("training processes", "seconds of a step of 16 rows"),
    "workers": Curve("workers", "seconds of a night of 64"),
}


def figure(title: str, x: str, points: Points) -> str:
    """Return an SVG of one curve. Every point has its value beside it."""
    xs = _axis([each for each, _ in points], WIDTH - LEFT - RIGHT)
    ys = _axis([each for _, each in points], HEIGHT - TOP - BOTTOM)
    places = [(LEFT + xs(one), HEIGHT - BOTTOM - ys(other)) for one, other in points]
    path = " ".join(f"{across:.1f},{down:.1f}" for across, down in places)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="11" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>',
        f'<text x="{LEFT}" y="18" font-weight="bold">{escape(title)}</text>',
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" stroke="{INK}" fill="none"/>',
        f'<polyline points="{path}" stroke="{LINE}" stroke-width="2" fill="none"/>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{escape(x)}</text>",
    ]
    for (across, down), (one, other) in zip(places, points, strict=True):
        foot = HEIGHT - BOTTOM
        parts += [
            f'<path d="M{across:.1f} {foot}V{down:.1f}" stroke="{GRID}"/>',
            f'<circle cx="{across:.1f}" cy="{down:.1f}" r="3" fill="{LINE}"/>',
            f'<text x="{across:.1f}" y="{foot + 15}" text-anchor="middle">{short(one)}</text>',
            f'<text x="{across - 5:.1f}" y="{down - 6:.1f}" text-anchor="end">'
            f"{short(other)}</text>",
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def short(value: float) -> str:
    """Return a number in a few characters: 1,500,000 as 1.5M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _axis(values: Sequence[float], length: float) -> Callable[[float], float]:
    """Return a function from a value to its distance from the origin."""
    low = math.log(min(values)) - MARGIN
    span = math.log(max(values)) + MARGIN - low
    return lambda value: length * (math.log(value) - low) / span


def figures(lines: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """Return the figures by name: seconds and memory of each curve that has two points or more."""
    found = {}
    for name, curve in CURVES.items():
        own = {line["size"]: line for line in lines if line["curve"] == name}
        ordered = [own[size] for size in sorted(own)]
        if len(ordered) < 2:
            continue
        key = "cpu_seconds" if "CPU" in curve.seconds else "seconds"
        for file, title, of in (
            ("time", curve.seconds, key),
            ("memory", "peak memory in MiB", "peak_mib"),
        ):
            points = [(line["size"], line[of]) for line in ordered]
            found[f"{name}-{file}.svg"] = figure(title, curve.x, points)
    return found


def main() -> None:
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "bench" / "scale.jsonl"
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "docs" / "images"
    lines = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in figures(lines).items():
        (folder / name).write_text(text, encoding="utf-8")
        print(folder / name)


if __name__ == "__main__":
    main()
