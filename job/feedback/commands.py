"""The command line of `recap feedback`.

Imports only click until the command runs, so that help is printed at once.
"""

import json
from collections.abc import Sequence

import click

from job.arguments import parse_variables, takes_config, takes_dry_run
from job.errors import ExitCode


@click.command(epilog="\b\nExample: recap feedback examples/feedback.yaml --var date=2026-02-02")
@takes_config
@takes_dry_run
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, for programs.")
def feedback(
    config: str,
    overrides: Sequence[str],
    variables: Sequence[str],
    dry_run: bool,
    as_json: bool,
) -> int:
    """Join agents' verdicts with the summaries that they read.

    Prints a report, and writes data to train on: edits as references (sft), pairs of edit and
    summary (pairs), and thumbs (thumbs).
    """
    from job.config.load import load_config
    from job.storage.config_file import read_config

    loaded = load_config("feedback", read_config(config), overrides, parse_variables(variables))
    if dry_run:
        from job.preflight.commands import plan_and_print

        return plan_and_print(loaded, as_json=as_json)
    from job.feedback.run import run_feedback
    from job.feedback.screen import next_step, screen
    from job.printable import printable

    numbers = run_feedback(loaded)
    if as_json:
        text = json.dumps(numbers, indent=2, ensure_ascii=False)
    else:
        text = f"{screen(numbers)}\n\n{next_step(numbers, loaded.output)}".rstrip()
    click.echo(printable(text))
    return ExitCode.DONE
