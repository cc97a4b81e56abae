"""Charts as geometry, which `charts.html` draws as inline SVG with the numbers behind it.

Horizontal positions are percentages of the drawing and vertical ones are pixels, so that a chart
fits any width without smaller letters.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

LINE_HEIGHT, HISTOGRAM_HEIGHT, INTERVAL_HEIGHT = 180, 64, 38  # pixels; of a row for the last two
BAR_HEIGHT = 40  # pixels, of the highest bar in a row
MAX_POINTS = 600  # of a line; more would not be seen
MAX_ROWS = 100  # of the table behind a chart
BINS = 30

Point = tuple[float, float]


@dataclass(frozen=True)
class Table:
    """The numbers behind a chart, as text. `note` says what is left out."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Tick:
    """A position on an axis and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Curve:
    """A named series of points; `kind` decides its colour: `judged`, `quiet` or `other`."""

    name: str
    points: Sequence[Point]
    kind: str = "judged"


@dataclass(frozen=True)
class Dot:
    """A circle with the text that a pointer shows, at percent and pixels."""

    x: float
    y: float
    label: str


@dataclass(frozen=True)
class Line:
    """A drawn curve. `path` is in a box of 1000 units by LINE_HEIGHT; `last` is its last value."""

    name: str
    kind: str
    path: str
    dots: Sequence[Dot]
    last: str


@dataclass(frozen=True)
class LineChart:
    """Lines over a common horizontal axis."""

    id: str
    title: str
    description: str
    lines: Sequence[Line]
    x_name: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    table: Table
    height: int = LINE_HEIGHT


@dataclass(frozen=True)
class Spread:
    """A named number with the bounds of its interval, which are not shown unless known."""

    name: str
    mean: float
    low: float
    high: float
    kind: str = "other"
    is_known: bool = True


@dataclass(frozen=True)
class Measure:
    """The meaning of a dot and of its interval, and the digits after the decimal point."""

    dot: str = "mean"
    interval: str = "95% interval"
    digits: int = 3


MEAN = Measure()


@dataclass(frozen=True)
class DrawnSpread:
    """A row of an interval plot, at percent and pixels."""

    name: str
    kind: str
    mean: float
    low: float
    high: float
    y: float
    text: str
    bounds: str


@dataclass(frozen=True)
class IntervalPlot:
    """A dot on its interval for each row; `zero` is where nothing differs, if that is shown."""

    id: str
    title: str
    description: str
    rows: Sequence[DrawnSpread]
    ticks: Sequence[Tick]
    zero: float | None
    height: int
    table: Table


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram, at percent and pixels, with the text that a pointer shows."""

    x: float
    width: float
    y: float
    height: float
    label: str


@dataclass(frozen=True)
class DrawnHistogram:
    """One row of histograms. `median` is its position in percent, None if there are no values."""

    name: str
    kind: str
    base: float
    bars: Sequence[Bar]
    median: float | None
    text: str


@dataclass(frozen=True)
class Histograms:
    """Histograms of several groups below each other, over the same axis."""

    id: str
    title: str
    description: str
    rows: Sequence[DrawnHistogram]
    ticks: Sequence[Tick]
    unit: str
    height: int
    table: Table


@dataclass(frozen=True)
class Group:
    """Named values for a histogram."""

    name: str
    values: Sequence[float]
    kind: str = "other"


def line_chart(
    id: str, title: str, curves: Sequence[Curve], x_name: str, is_from_zero: bool = False
) -> LineChart | None:
    """Return a chart of the curves' finite points, None if there are none."""
    finite = []
    for curve in curves:
        points = [point for point in curve.points if all(math.isfinite(part) for part in point)]
        if points:
            finite.append(Curve(curve.name, points, curve.kind))
    if not finite:
        return None

    xs = [x for curve in finite for x, _ in curve.points]
    ys = [y for curve in finite for _, y in curve.points]
    x_ticks = ticks(min(xs), max(xs), 5, is_whole=True)
    y_ticks = ticks(0.0 if is_from_zero else min(ys), max(ys), 4)
    to_x = _scale(x_ticks[0], max(xs), 100)
    to_y = _scale(y_ticks[0], y_ticks[-1], LINE_HEIGHT)

    def place(point: Point) -> Point:
        return to_x(point[0]), LINE_HEIGHT - to_y(point[1])

    ends = [
        f"{curve.name} from {short(curve.points[0][1])} to {short(curve.points[-1][1])}"
        for curve in finite
    ]
    return LineChart(
        id=id,
        title=title,
        description=f"{title} by {x_name}: {'; '.join(ends)}.",
        lines=[_line(curve, place) for curve in finite],
        x_name=x_name,
        x_ticks=[Tick(to_x(value), f"{value:,.0f}") for value in x_ticks if value <= max(xs)],
        y_ticks=[Tick(LINE_HEIGHT - to_y(value), short(value)) for value in y_ticks],
        table=_points_table(finite, x_name),
    )


def interval_plot(
    id: str, title: str, rows: Sequence[Spread], measure: Measure = MEAN, has_zero: bool = False
) -> IntervalPlot:
    """Return the rows as dots on their intervals, over an axis that includes 0 if `has_zero`."""
    digits = measure.digits
    lows = [row.low for row in rows] + [0.0] * has_zero
    highs = [row.high for row in rows] + [0.0] * has_zero
    # From 0, unless everything is far from it.
    lowest = 0.0 if 0 <= min(lows) < max(highs) / 2 else min(lows)
    marks = ticks(lowest, max(highs), 5)
    to_x = _scale(marks[0], marks[-1], 100)
    sign = "+" if has_zero else ""
    drawn = []
    for number, row in enumerate(rows):
        drawn.append(
            DrawnSpread(
                name=row.name,
                kind=row.kind,
                mean=to_x(row.mean),
                low=to_x(row.low),
                high=to_x(row.high),
                y=INTERVAL_HEIGHT * (number + 0.5),
                text=f"{row.mean:{sign}.{digits}f}",
                bounds=f"[{row.low:.{digits}f}, {row.high:.{digits}f}]" if row.is_known else "",
            )
        )
    told = [f"{row.name} {row.text} {row.bounds}" for row in drawn]
    table = [(row.name, row.text, row.bounds) for row in drawn]
    return IntervalPlot(
        id=id,
        title=title,
        description=f"{title}, {measure.dot} [{measure.interval}]: {'; '.join(told)}.",
        rows=drawn,
        ticks=[Tick(to_x(value), short(value)) for value in marks],
        zero=to_x(0.0) if has_zero else None,
        height=INTERVAL_HEIGHT * len(rows),
        table=Table(("", measure.dot, measure.interval), table),
    )


def histograms(id: str, title: str, groups: Sequence[Group], unit: str) -> Histograms | None:
    """Return the groups' histograms over one axis from 0, None if no group has a value.

    Each has its median, with the 10th and 90th percentile in brackets.

    The axis ends at the largest 99th percentile: larger values are counted in the last bar.
    """
    filled = [group for group in groups if len(group.values)]
    if not filled:
        return None
    highest = max(float(np.percentile(group.values, 99)) for group in filled)
    marks = ticks(0.0, max(highest, 1.0), 5, is_whole=True)
    edges = _whole_edges(marks[-1])
    rows, table = [], []
    for number, group in enumerate(filled):
        rows.append(_histogram(group, edges, HISTOGRAM_HEIGHT * (number + 1), unit))
        low, median, high = np.percentile(group.values, [10, 50, 90])
        numbers = (np.mean(group.values), low, median, high, max(group.values))
        table.append((group.name, f"{len(group.values):,}", *(f"{n:,.1f}" for n in numbers)))
    head = ("", "number", "mean", "10th percentile", "median", "90th percentile", "largest")
    told = "; ".join(f"{row.name}: {row.text}" for row in rows)
    return Histograms(
        id=id,
        title=title,
        description=f"{title} in {unit}, with the median (10th to 90th percentile). {told}.",
        rows=rows,
        ticks=[Tick(100 * value / edges[-1], f"{value:,.0f}") for value in marks],
        unit=unit,
        height=HISTOGRAM_HEIGHT * len(rows),
        table=Table(head, table),
    )


def ticks(low: float, high: float, count: int, is_whole: bool = False) -> list[float]:
    """Return about `count` round numbers at equal distances, from below `low` to above `high`."""
    if not high > low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
    if is_whole:
        step = max(1.0, float(math.ceil(step)))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(step * number, 12) for number in range(first, last + 1)]


def short(value: float) -> str:
    """Return a number for an axis: at most four digits, without an exponent where possible."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 0.001:
        return f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e")
    return f"{value:.4g}"


def _scale(low: float, high: float, length: float) -> Callable[[float], float]:
    """Return a function from values between `low` and `high` to positions."""
    width = high - low or 1.0
    return lambda value: round((value - low) / width * length, 2)


def _line(curve: Curve, place: Callable[[Point], Point]) -> Line:
    placed = [place(point) for point in _thinned(curve.points)]
    dots = []
    # A line through one point cannot be seen, and few points are measurements of interest.
    if len(placed) <= 30:
        for (x, y), (at, value) in zip(placed, curve.points, strict=True):
            dots.append(Dot(x, y, f"{curve.name} {short(value)} at {at:,.0f}"))
    path = " ".join(f"{x * 10:.1f},{y:.1f}" for x, y in placed)
    return Line(curve.name, curve.kind, path, dots, short(curve.points[-1][1]))


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """Return at most MAX_POINTS points: of each stretch the lowest and the highest, in order."""
    if len(points) <= MAX_POINTS:
        return points
    kept = []
    for stretch in np.array_split(np.arange(len(points)), MAX_POINTS // 2):
        values = [points[index][1] for index in stretch]
        ends = {int(stretch[np.argmin(values)]), int(stretch[np.argmax(values)])}
        kept += [points[index] for index in sorted(ends)]
    return kept


def _points_table(curves: Sequence[Curve], x_name: str) -> Table:
    values: dict[float, dict[str, str]] = {}
    for curve in curves:
        for x, y in curve.points:
            values.setdefault(x, {})[curve.name] = short(y)
    names = [curve.name for curve in curves]
    steps = sorted(values)
    every = math.ceil(len(steps) / MAX_ROWS)
    note = f"One of each {every} rows of {len(steps):,}." if every > 1 else ""
    rows = []
    for x in steps[::every]:
        rows.append((f"{x:,.0f}", *(values[x].get(name, "") for name in names)))
    return Table((x_name, *names), rows, note)


def _whole_edges(highest: float) -> list[float]:
    """Return the edges of about BINS bins of equally many whole numbers, the first from 0."""
    width = max(1, math.ceil(highest / BINS))
    return [float(edge) for edge in range(0, math.ceil(highest) + width, width)]


def _histogram(group: Group, edges: Sequence[float], base: float, unit: str) -> DrawnHistogram:
    counts, _ = np.histogram(np.minimum(group.values, edges[-1]), edges)
    highest = max(int(counts.max()), 1)
    width = 100 / (len(edges) - 1)
    bars = []
    for number, count in enumerate(counts):
        height = round(BAR_HEIGHT * float(count) / highest, 2)
        # The last bin has its upper edge and all that is larger; others end before theirs.
        first, last = edges[number], edges[number + 1] - 1
        span = f"{first:,.0f}" if last == first else f"{first:,.0f} to {last:,.0f}"
        if number == len(counts) - 1:
            span = f"{first:,.0f} or more"
        span += f" {unit}: {count:,}"
        if count:
            bars.append(Bar(round(width * number, 2), round(width, 2), base - height, height, span))
    low, median, high = np.percentile(group.values, [10, 50, 90])
    text = f"median {median:,.0f} ({low:,.0f} to {high:,.0f})"
    at = round(100 * min(float(median) / float(edges[-1]), 1.0), 2)
    return DrawnHistogram(group.name, group.kind, base, bars, at, text)
