"""The command line of `recap plan`.

Imports only click until the command runs, so that help is printed at once.
"""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from job.arguments import parse_variables, takes_config
from job.errors import ExitCode

if TYPE_CHECKING:
    from job.config.commands import Config
    from job.errors import RecapError
    from job.preflight.checks import Plan
    from job.preflight.devices import Devices


@click.command(epilog="\b\nExample: recap plan examples/support-chat.yaml --gpu l4 --gpu h100")
@takes_config
@click.option(
    "--command",
    type=click.Choice(["train", "summarize", "evaluate", "feedback"]),
    help="Command that the config is for; by default the one whose keys fit.",
)
@click.option(
    "--gpu",
    "gpus",
    multiple=True,
    metavar="NAME",
    help="GPU that you might rent, such as l4, a10g or h100, or cpu: predict whether a training "
    "fits into its memory, and how long it takes. Repeatable. By default the GPUs of this machine.",
)
@click.option(
    "--price-per-hour",
    type=click.FloatRange(min=0),
    metavar="PRICE",
    help="Price of an hour of one GPU, in any currency, to estimate what a training costs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON, for programs.")
@click.option(
    "--html",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the plan to this file, too, as a page for a browser.",
)
def plan(
    config: str,
    overrides: Sequence[str],
    variables: Sequence[str],
    command: Any,
    gpus: Sequence[str],
    price_per_hour: float | None,
    **output: Any,
) -> int:
    """Check all that can be checked before paying. Needs no GPU."""
    from job.config.load import load_config
    from job.evaluation.metrics.all_metrics import METRICS
    from job.storage.config_file import read_config

    values = parse_variables(variables)
    loaded = load_config(command, read_config(config), overrides, values, METRICS)
    from job.preflight.devices import find_devices

    return plan_and_print(loaded, find_devices(gpus, price_per_hour), **output)


def plan_and_print(
    config: "Config",
    devices: "Devices | None" = None,
    fresh: bool = False,
    as_json: bool = False,
    html: Path | None = None,
) -> int:
    """Plan the command that this config is for on this machine, and print it as `print_plan`.

    `fresh` is that of `recap train`.
    """
    from job.preflight.devices import NONE_NAMED
    from job.preflight.plan import plan as plan_job

    return print_plan(plan_job(config, devices or NONE_NAMED, fresh=fresh), as_json, html)


def print_plan(plan: "Plan", as_json: bool = False, html: Path | None = None) -> int:
    """Print the plan with all its errors, write it to `html`, and raise the first error.

    Only a terminal sees the example: what is piped may be kept, and would quote a conversation.
    """
    from job.preflight.page import has_colors, page
    from job.printable import printable

    is_terminal = sys.stdout.isatty()
    if not is_terminal:
        plan = plan.without_example()
    if as_json:
        click.echo(printable(json.dumps(plan.report(), indent=2, ensure_ascii=False)))
    elif is_terminal:
        columns = shutil.get_terminal_size().columns
        click.echo(page(plan, columns, has_colors(os.environ)))
    else:
        click.echo(printable(plan.text()))
    if html is not None:
        from job.preflight.html import html_page
        from job.storage.atomic import write_file

        write_file(html, html_page(plan).encode())
    if plan.error:
        raise plan.error if as_json or not is_terminal else _shown_above(plan, plan.error)
    return ExitCode.DONE


def _shown_above(plan: "Plan", error: "RecapError") -> "RecapError":
    """Return the error with the name of its check in place of the text, which the plan has."""
    names = [check.name for check in plan.checks if check.error is error]
    return type(error)(f"{names[0]}, as above") if names else error
