"""Deploy what follows the nights: a watch after each, and each week a challenger from feedback.

`make follow` runs it after `make push` and `make deploy`. A job of Batch cannot name another entry
point than its image has, so it pushes one more image: that of trainings, which starts recap with
any command. Then it deploys follow.yaml as the stack of the given name with -follow. Its parameters
are outputs of the first stack and facts of that stack's job definitions. With `--image-only` it
pushes the image and leaves the stack to Terraform.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from deploy import RefusedError, Stack, confirm, find, outputs, parse_parameters, show
from entry_point import push_with_entry_point

FOLLOW = "follow.yaml"
# Parameters that are variables of the night's jobs, if these have them.
VARIABLES = {"HTTPS_PROXY": "HttpsProxy", "NO_PROXY": "NoProxy"}


def main() -> None:
    """Read the command line, push and deploy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stack", default="recap")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--dry-run", action="store_true", help="only print what would be done")
    parser.add_argument("--image-only", action="store_true", help="push, and deploy nothing")
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE")
    given = parser.parse_args()
    try:
        session = boto3.session.Session()
        if given.image_only:
            push_image(session, stack_outputs(session, given.stack), given.dry_run)
        else:
            follow(session, given.stack, given.parameters, given.yes, given.dry_run)
    except (RefusedError, BotoCoreError, ClientError) as error:
        sys.exit(f"error: {error}")
    except FileNotFoundError as error:
        sys.exit(f"error: there is no {error.filename}: install it")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {shlex.join(error.cmd)} ended with {error.returncode}")


def follow(
    session: Any,
    stack: str,
    parameters: Sequence[str],
    yes: bool,
    dry_run: bool,
    template: str | None = None,
) -> None:
    """Push the image and deploy the stack. Raise RefusedError if it cannot be.

    `template` is its text, if it is not the file's.
    """
    cloudformation = session.client("cloudformation")
    values = stack_outputs(session, stack)
    template = template or Path(__file__).with_name(FOLLOW).read_text(encoding="utf-8")
    third = Stack(cloudformation, f"{stack}-follow", template, stack)
    passed = values | _facts(session.client("batch"), values)
    named = parse_parameters(parameters)
    if unknown := sorted(named.keys() - third.parameters.keys() | named.keys() & passed.keys()):
        own = ", ".join(sorted(third.parameters.keys() - passed.keys()))
        raise RefusedError(f"{FOLLOW} takes no {unknown[0]} from you; it takes {own}")

    push_image(session, values, dry_run)
    if dry_run:
        print(f"stack {third.name}, with {', '.join(sorted(set(third.kinds)))}")
        return
    third.plan(named | passed)
    if third.missing:
        missing = ", ".join(sorted(third.missing))
        raise RefusedError(f"stack {stack} has no {missing}: `make deploy` first")
    show(third)
    if third.change:
        if not yes and not confirm("Change it so? [y/N] "):
            third.discard()
            raise RefusedError("nothing was changed")
        third.execute()


def stack_outputs(session: Any, stack: str) -> dict[str, str]:
    """Return the outputs of the first stack. Raise RefusedError if it is not there."""
    found = find(session.client("cloudformation"), stack)
    if not found:
        raise RefusedError(
            f"stack {stack} is not there, in this account and region: `make deploy` first"
        )
    return outputs(found)


def push_image(session: Any, values: dict[str, str], dry_run: bool) -> None:
    """Push the image of trainings with recap itself as its entry point, unless it is there."""
    push_with_entry_point(session, values, "train", "recap", ["recap"], dry_run)


def _facts(batch: Any, values: dict[str, str]) -> dict[str, str]:
    """Return the parameters that are no output: the image, and the proxy of nights."""
    definition = values["SummarizeJobDefinition"]
    described = batch.describe_job_definitions(jobDefinitions=[definition])["jobDefinitions"]
    container = described[0]["containerProperties"]
    found = {"Image": f"{values['Repository']}:recap-{values['ImageTag']}"}
    for variable in container.get("environment", ()):
        if variable["name"] in VARIABLES:
            found[VARIABLES[variable["name"]]] = variable["value"]
    return found


if __name__ == "__main__":
    main()
