"""A page of every part of the kit, with hostile text wherever text from data can stand."""

from job.conversations.record import Turn
from job.pages.charts import Curve, Group, Spread, histograms, interval_plot, line_chart
from job.pages.conversations import Badge, Gallery, Order, ShownConversation, ShownSummary
from job.pages.render import render

HOSTILE = (
    '<script>document.title="ran"</script>"\'><img src=x onerror="document.title=`ran`"></script>'
    "</style><!-- {{7*7}} {% raw %} ${7*7} \x1b[31m\x07\x00\u202egnp.exe\u2028\ud800 &lt;b&gt;"
)


def make_gallery() -> Gallery:
    shown = []
    for number in range(12):
        turns = [Turn("customer", f"My order {number} is late."), Turn("agent", "I am sorry.")]
        summary = ShownSummary(
            "tuned",
            f"Order {number} is late by 42 days.",
            "judged",
            [Badge("1 invented number", "bad")],
            {"42": "not in the conversation"},
        )
        tags = ["best"] if number < 3 else ["random"]
        shown.append(
            ShownConversation(
                f"c-{number:02d}",
                turns,
                [f"The order {number} is late."],
                [summary, ShownSummary("base", "")],
                tags,
                numbers={"score": number / 12},
            )
        )
    evil = ShownConversation(
        HOSTILE,
        [Turn(HOSTILE, HOSTILE)],
        [HOSTILE],
        [ShownSummary(HOSTILE, HOSTILE, badges=[Badge(HOSTILE)], marks={"script": HOSTILE})],
        ["random"],
        [Badge(HOSTILE)],
    )
    tags = {"best": "Best", "random": "Random", "absent": "Never"}
    return Gallery([*shown, evil], tags, [Order("Lowest score first", "score")], of=200)


def sample_page() -> str:
    curve = Curve("training", [(step, 3 - step / 100) for step in range(1, 200)])
    spreads = [Spread("tuned", 0.3, 0.28, 0.32, "judged"), Spread(HOSTILE, 0.1, 0.05, 0.15)]
    groups = [Group("tuned", [3, 20, 21, 25, 400] * 40, "judged"), Group(HOSTILE, [1, 2])]
    return render(
        "tests.pages",
        "sample.html",
        title=f"Run {HOSTILE}",
        loss=line_chart("loss", "Loss", [curve, Curve(HOSTILE, [(1, 2), (9, 1)])], "steps"),
        scores=interval_plot("scores", "ROUGE-L", spreads),
        lengths=histograms("lengths", "Lengths", groups, "words"),
        gallery=make_gallery(),
    )
