"""Draw the points of `benchmarks/scale.py` as SVG, with logarithmic axes.

`python -m benchmarks.plots [FILE [FOLDER]]` reads benchmarks/results/scale.jsonl and writes two
figures for each curve to docs/images. The newest line counts where a point was measured several
times. Ink and paper are part of a figure, so that it is legible on a dark page, too.
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
LEFT, RIGHT, TOP, BOTTOM = 24, 24, 44, 42  # margins around the axes
MARGIN = 0.12  # beyond the outermost points, as a share of their distance
MIN_SPAN = math.log(10)  # of the values: less is drawn as flat as it is
INK, PAPER, LINE, GRID = "#222222", "#ffffff", "#1f5fa8", "#cccccc"

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """The words of one curve, and the key of its time."""

    x: str
    time: str
    key: str
    grows: bool = True  # by its sizes; else more processes share the same work


CURVES = {
    "preparation": Curve("conversations", "CPU seconds of preparation", "cpu_seconds"),
    "night": Curve("conversations", "CPU seconds of a night without the model", "cpu_seconds"),
    "length": Curve("tokens of a row", "CPU seconds of a step of 8 rows", "cpu_seconds"),
    "processes": Curve("training processes", "seconds of a step of 16 rows", "seconds", False),
    "workers": Curve("workers of a night", "seconds of a night of 64", "seconds", False),
}


def figures(lines: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """Return the figures by name: time and memory of each curve that has two points or more."""
    found = {}
    for name, curve in CURVES.items():
        own = {line["size"]: line for line in lines if line["curve"] == name}
        ordered = [own[size] for size in sorted(own)]
        if len(ordered) < 2:
            continue
        for kind, title, key in (
            ("time", curve.time, curve.key),
            ("memory", "peak memory of a process in MiB", "peak_mib"),
        ):
            points = [(line["size"], line[key]) for line in ordered]
            compares = curve.grows and kind == "time"
            found[f"scale-{name}-{kind}.svg"] = figure(title, curve.x, points, compares)
    return found


def figure(title: str, x: str, points: Points, compares: bool) -> str:
    """Return an SVG of one curve. Every point has its value above it.

    A dashed line through the first point is proportional growth, if `compares`.
    """
    sizes = [size for size, _ in points]
    values = [value for _, value in points]
    across = _axis(sizes, 0, WIDTH - LEFT - RIGHT)
    down = _axis(values, MIN_SPAN, HEIGHT - TOP - BOTTOM)
    foot = HEIGHT - BOTTOM
    places = [(LEFT + across(size), foot - down(value)) for size, value in points]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>',
        f'<text x="{LEFT}" y="20" font-weight="bold">{escape(title)}</text>',
        f'<path d="M{LEFT} {foot}H{WIDTH - RIGHT}" stroke="{INK}"/>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x)}</text>',
    ]
    if compares:
        parts.append(_proportional(points, across, down))
    path = " ".join(f"{right:.1f},{below:.1f}" for right, below in places)
    parts.append(f'<polyline points="{path}" stroke="{LINE}" stroke-width="2" fill="none"/>')
    for (right, below), (size, value) in zip(places, points, strict=True):
        parts += [
            f'<path d="M{right:.1f} {foot}V{foot + 4}" stroke="{INK}"/>',
            f'<circle cx="{right:.1f}" cy="{below:.1f}" r="3" fill="{LINE}"/>',
            f'<text x="{right:.1f}" y="{foot + 17}" text-anchor="middle">{short(size)}</text>',
            f'<text x="{right:.1f}" y="{below - 8:.1f}" text-anchor="middle">{short(value)}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def short(value: float) -> str:
    """Return a number in a few characters: 1,500,000 as 1.5M."""
    for size, letter in ((1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g}{letter}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


Axis = Callable[[float], float]


def _axis(values: Sequence[float], least_span: float, length: float) -> Axis:
    """Return a function from a value to its distance from the origin.

    Values that differ less than `least_span`, in logarithms, are in the middle.
    """
    logarithms = [math.log(value) for value in values]
    span = max(max(logarithms) - min(logarithms), least_span)
    middle = (max(logarithms) + min(logarithms)) / 2
    whole = span * (1 + 2 * MARGIN)
    return lambda value: length * (0.5 + (math.log(value) - middle) / whole)


def _proportional(points: Points, across: Axis, down: Axis) -> str:
    """Return a dashed line from the first point that rises as its sizes do, as far as it fits."""
    size, value = points[0]
    most = points[-1][0] / size
    top = max(value for _, value in points)
    factor = min(most, max(top / value, 1.0))
    foot = HEIGHT - BOTTOM
    start = f"{LEFT + across(size):.1f} {foot - down(value):.1f}"
    end = f"{LEFT + across(size * factor):.1f} {foot - down(value * factor):.1f}"
    return f'<path d="M{start}L{end}" stroke="{GRID}" stroke-width="2" stroke-dasharray="5 4"/>'


def main() -> None:
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "benchmarks/results/scale.jsonl"
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "docs" / "images"
    lines = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in figures(lines).items():
        (folder / name).write_text(text, encoding="utf-8")
        print(folder / name)


if __name__ == "__main__":
    main()
