"""The arguments that commands with a config share, and what their help says of them.

Imports only click, so that help is told at once. Knows nothing of the commands.
"""

from collections.abc import Callable, Sequence
from typing import Any

import click


def configured(function: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments that every command with a config takes, and what its help says of them."""
    function.__doc__ = f"{function.__doc__}\n\nCONFIG is a path, s3://… or - for standard input; else $RECAP_CONFIG."
    variable = click.option(
        "--var",
        "variables",
        multiple=True,
        metavar="NAME=VALUE",
        help="Value of {NAME} in the config; repeatable.",
    )
    override = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="PATH.TO.KEY=VALUE",
        help="Override a key; repeatable.",
    )
    config = click.argument("config", cls=_Config, envvar="RECAP_CONFIG", metavar="[CONFIG]")
    return config(override(variable(function)))


class _Config(click.Argument):
    """The config's place, which may come from the environment; click's own message does not say so."""

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """The value as click has it; UsageError where there is none."""
        if self.value_is_missing(value):
            raise click.UsageError("no config: give a path, s3://… or -, or set RECAP_CONFIG", ctx)
        return super().process_value(ctx, value)


def named(variables: Sequence[str]) -> dict[str, str]:
    """What `--var` gives, by name; BadParameter for what is not NAME=VALUE."""
    wrong = [text for text in variables if "=" not in text]
    if wrong:
        raise click.BadParameter(f"'{wrong[0]}' is not NAME=VALUE", param_hint="--var")
    return dict(text.split("=", 1) for text in variables)
