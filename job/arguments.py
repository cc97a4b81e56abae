"""The arguments that commands with a config share, with their help.

Imports only click, so that help is printed at once.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import click


def takes_config(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument CONFIG and the options that change it to a command."""
    function.__doc__ = (
        f"{inspect.cleandoc(function.__doc__ or '')}\n\n"
        "CONFIG is a path, s3://… or - for standard input; by default $RECAP_CONFIG."
    )
    variable = click.option(
        "--var",
        "variables",
        multiple=True,
        metavar="NAME=VALUE",
        help="Set the value of {NAME} in the config. Repeatable.",
    )
    override = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="PATH.TO.KEY=VALUE",
        help="Override a key of the config. Repeatable.",
    )
    config = click.argument("config", cls=_Config, envvar="RECAP_CONFIG", metavar="[CONFIG]")
    return config(override(variable(function)))


def takes_dry_run(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option that stops a command after its plan."""
    help = "Print the plan, as `recap plan` does, and stop."
    return click.option("--dry-run", is_flag=True, help=help)(function)


class _Config(click.Argument):
    """The argument CONFIG. Its error names the environment variable, which click's does not."""

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """Return click's value. Raise UsageError if there is none."""
        if self.value_is_missing(value):
            raise click.UsageError("no config: give a path, s3://… or -, or set RECAP_CONFIG", ctx)
        return super().process_value(ctx, value)


def parse_variables(variables: Sequence[str]) -> dict[str, str]:
    """Return the values of `--var` by name. Raise BadParameter if one is not NAME=VALUE."""
    values = {}
    for text in variables:
        name, separator, value = text.partition("=")
        if not separator:
            raise click.BadParameter(f"'{text}' is not NAME=VALUE", param_hint="--var")
        values[name] = value
    return values
