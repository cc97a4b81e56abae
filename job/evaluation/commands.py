"""The command line of `recap champion`: show, set and roll back what a pointer names.

Imports only click until a command runs, so that help is printed at once.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from job.model.champion import Pointer


@click.group(epilog="Example: recap champion show s3://my-bucket/champions/support.json")
def champion() -> None:
    """Show or switch the adapter that nights follow.

    POINTER is a file whose name ends in .json: a path, s3://… or hf://…. The service of S3 is that
    of the environment (AWS_ENDPOINT_URL).
    """


def _of_every_switch(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of commands that write to a pointer."""
    reason = click.option("--reason", default="", help="Why, for those who read the history.")
    by = click.option("--by", help="Who does it; by default the user and the machine.")
    return reason(by(function))


@champion.command()
@click.argument("pointer")
def show(pointer: str) -> None:
    """Print the champion, what let it in, and those before it."""
    from job.config.sections import StorageSection
    from job.model.champion import read_pointer

    _print(read_pointer(pointer, StorageSection()))


@champion.command(
    "set",
    epilog="Example: recap champion set s3://my-bucket/champions/support.json "
    "s3://my-bucket/runs/support/adapter --reason 'judged by the team'",
)
@click.argument("pointer")
@click.argument("adapter")
@_of_every_switch
def set_adapter(pointer: str, adapter: str, reason: str, by: str | None) -> None:
    """Verify ADAPTER and make it the champion, without a gate.

    ADAPTER is the folder of an adapter, or another pointer, whose champion is meant.
    """
    from job.config.sections import StorageSection
    from job.evaluation.champion import set_champion, who

    _print(set_champion(pointer, adapter, StorageSection(), by or who(), reason))


@champion.command()
@click.argument("pointer")
@_of_every_switch
def rollback(pointer: str, reason: str, by: str | None) -> None:
    """Bring back the champion before this one, by one write."""
    from job.config.sections import StorageSection
    from job.evaluation.champion import roll_back_champion, who

    _print(roll_back_champion(pointer, StorageSection(), by or who(), reason))


def _print(pointer: "Pointer") -> None:
    from job.config.sections import StorageSection
    from job.evaluation.champion_screen import champion_screen
    from job.printable import printable

    click.echo(printable(champion_screen(pointer, StorageSection())))
