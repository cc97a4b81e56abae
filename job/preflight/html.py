"""Draw a plan as one HTML page that needs nothing else, for people who were not at the terminal."""

from job.pages.render import render
from job.preflight.checks import Plan
from job.printable import printable


def html_page(plan: Plan) -> str:
    """Return the whole page, without secrets and without the check that quotes a conversation."""
    plan = plan.without_example()
    checks = [
        (found.mark, found.state, found.name, printable(text)) for found, text in plan.sections()
    ]
    return render(
        "job.preflight",
        "plan.html",
        title=printable(plan.title),
        kind="bad" if plan.error else "good",
        verdict=printable(plan.verdict()),
        checks=checks,
        config=printable(plan.config),
    )
