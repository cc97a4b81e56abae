"""The two pictures of a report: scores with their intervals, and the loss over the steps.

The scores are inline SVG, coloured by the page. The loss is a PNG, once for light and once for dark
pages.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np

from job.evaluation.metrics.all_metrics import HEADLINE
from job.evaluation.result import Evaluation, mean_score, ranked_systems, shorten

# Of the SVG, in its own units; LEFT is the room for names, RIGHT for numbers.
WIDTH, ROW_HEIGHT, LEFT, RIGHT = 960, 38, 230, 90
LIGHT = {
    "paper": "#ffffff",
    "ink": "#1c2126",
    "quiet": "#626b75",
    "line": "#e2e5e9",
    "accent": "#0f6b5c",
}
DARK = {
    "paper": "#1a1e22",
    "ink": "#e6e9ec",
    "quiet": "#9aa3ad",
    "line": "#2d3339",
    "accent": "#5cc8b1",
}

# Rows with `step` and any of `loss`, `eval_loss`, `learning_rate`.
LossHistory = Sequence[Mapping[str, float]]


class LossPictures(NamedTuple):
    """The same picture for light and for dark pages, each a PNG."""

    light: bytes
    dark: bytes


def dot_chart(evaluation: Evaluation) -> str:
    """Return an SVG element: each system's score by HEADLINE as a dot on its 95% interval."""
    intervals = {
        name: score
        for name in ranked_systems(evaluation)
        if (score := mean_score(evaluation, name))
    }
    highest = max(interval.high for interval in intervals.values())
    step = 0.1 if highest > 0.3 else 0.05
    steps = math.ceil(highest / step + 1e-9)
    ticks = [step * number for number in range(steps + 1)]
    bottom = ROW_HEIGHT * len(intervals) + 6

    def x(score: float) -> str:
        return f"{LEFT + (WIDTH - LEFT - RIGHT) * score / ticks[-1]:.1f}"

    parts = []
    for tick in ticks:
        parts.append(
            f'<line class="grid" x1="{x(tick)}" x2="{x(tick)}" y1="0" y2="{bottom}"/>'
            f'<text class="tick" x="{x(tick)}" y="{bottom + 18}" text-anchor="middle">'
            f"{tick:.2f}</text>"
        )
    for row, (name, interval) in enumerate(intervals.items()):
        y = ROW_HEIGHT * row + ROW_HEIGHT / 2 + 3
        parts.append(
            f'<g class="{"judged" if name == evaluation.judged else "other"}">'
            f'<text class="name" x="0" y="{y + 4.5}">{escape(shorten(name, 30))}</text>'
            f'<line class="bar" x1="{x(interval.low)}" x2="{x(interval.high)}" y1="{y}" y2="{y}"/>'
            f'<circle class="dot" cx="{x(interval.mean)}" cy="{y}" r="5.5"/>'
            f'<text x="{WIDTH}" y="{y + 4.5}" text-anchor="end">{interval.mean:.3f}</text></g>'
        )
    label = escape(f"{HEADLINE.title} with 95% interval by system")
    box = f"0 0 {WIDTH} {bottom + 26}"
    return f'<svg viewBox="{box}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def loss_pictures(history: LossHistory) -> LossPictures:
    """Draw training and validation loss over optimizer steps, and the learning rate below."""
    return LossPictures(_loss_png(history, LIGHT), _loss_png(history, DARK))


def _loss_png(history: LossHistory, ink: Mapping[str, str]) -> bytes:
    # Not pyplot, which has global state and looks for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator

    figure = Figure(
        figsize=(9, 5), dpi=160, facecolor=ink["paper"], layout=ConstrainedLayoutEngine(hspace=0.06)
    )
    FigureCanvasAgg(figure)
    losses, rates = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    _line(losses, history, "loss", "training", {"color": ink["quiet"], "linewidth": 1.4})
    validation = {"color": ink["accent"], "linewidth": 2, "marker": "o", "markersize": 4}
    _line(losses, history, "eval_loss", "validation", validation)
    _line(rates, history, "learning_rate", None, {"color": ink["quiet"], "linewidth": 1.4})
    losses.set_ylabel("loss (nats per token)")
    rates.set_ylabel("learning rate")
    rates.set_xlabel("optimizer steps")
    rates.xaxis.set_major_locator(MaxNLocator(integer=True))
    rates.yaxis.set_major_formatter(
        lambda rate, _: np.format_float_positional(float(f"{rate:.3g}"), trim="-")
    )
    rates.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    rates.set_ylim(bottom=0)
    for axes in (losses, rates):
        _style(axes, ink)
    if losses.lines:
        losses.legend(frameon=False, labelcolor=ink["ink"])
    picture = BytesIO()
    figure.savefig(picture, format="png", facecolor=ink["paper"])
    return picture.getvalue()


def _line(
    axes: Any, history: LossHistory, key: str, label: str | None, style: dict[str, Any]
) -> None:
    """Draw a line through the rows that have the key.

    A row has only what was measured at its step.
    """
    rows = [row for row in history if math.isfinite(row.get(key, math.nan))]
    if not rows:
        return
    if len(rows) == 1:
        style = {"marker": "o", **style}  # a line through one point cannot be seen
    axes.plot([row["step"] for row in rows], [row[key] for row in rows], label=label, **style)


def _style(axes: Any, ink: Mapping[str, str]) -> None:
    axes.set_facecolor(ink["paper"])
    axes.grid(axis="y", color=ink["line"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(ink["line"])
    axes.tick_params(colors=ink["quiet"], length=0, labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=ink["ink"], fontsize=10)
