"""The command line of `recap watch`. Imports only click until it runs, so that help is instant."""

import json
from collections.abc import Sequence

import click

from job.arguments import parse_variables, takes_config


@click.command(epilog="Example: recap watch examples/watch.yaml --plot nights.html")
@takes_config
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON, for programs.")
@click.option(
    "--plot",
    metavar="FILE",
    help="Write a page with each figure over the nights: a path or s3://…, ending in .html.",
)
def watch(
    config: str,
    overrides: Sequence[str],
    variables: Sequence[str],
    as_json: bool,
    plot: str | None,
) -> None:
    """Compare nights with those before; ends with 76 if they changed.

    Reads the manifests of nights, and no summary. Needs no GPU.
    """
    from job.config.load import load_config
    from job.storage.config_file import read_config

    values = parse_variables(variables)
    loaded = load_config("watch", read_config(config), overrides, values)
    from job.printable import printable
    from job.watch.page import check_name, write_page
    from job.watch.screen import screen, to_json
    from job.watch.watch import (
        judge_nights,
        raise_alarm,
        report,
        require_anchors,
        wait_for_expected,
    )

    if plot:
        check_name(plot)
    wait_for_expected(loaded)
    verdict = judge_nights(loaded)
    if as_json:
        click.echo(printable(json.dumps(to_json(verdict), indent=2, ensure_ascii=False)))
    else:
        click.echo(printable(screen(verdict)))
    report(loaded, verdict)  # before the page, which may not be writable
    if plot:
        write_page(plot, loaded, verdict)
    raise_alarm(loaded, verdict)
    require_anchors(loaded, verdict)
