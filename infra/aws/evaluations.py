"""Let the stack's jobs evaluate: an image that starts `recap evaluate`, and its job definition.

`make evaluations` runs it after `make push` and `make deploy`. A job of Batch cannot name another
entry point, so the image is that of the nights with one line more: evaluations judge with what
serves. The definition is that of trainings with this image: its role reads data and writes runs and
champions. Nothing is changed that is there already.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from deploy import RefusedError, find, outputs
from entry_point import push_with_entry_point

# What a definition of Batch has, in its description as in its registration.
COPIED = ("type", "platformCapabilities", "propagateTags", "timeout", "retryStrategy")


def main() -> None:
    """Read the command line, push and register."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stack", default="recap")
    parser.add_argument("--dry-run", action="store_true", help="only print what would be done")
    given = parser.parse_args()
    try:
        add_evaluations(boto3.session.Session(), given.stack, given.dry_run)
    except (RefusedError, BotoCoreError, ClientError) as error:
        sys.exit(f"error: {error}")
    except FileNotFoundError as error:
        sys.exit(f"error: there is no {error.filename}: install it")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {shlex.join(error.cmd)} ended with {error.returncode}")


def add_evaluations(session: Any, stack: str, dry_run: bool) -> None:
    """Push the image and register the definition. Raise RefusedError if there is no stack."""
    found = find(session.client("cloudformation"), stack)
    if not found:
        raise RefusedError(
            f"stack {stack} is not there, in this account and region: `make deploy` first"
        )
    values = outputs(found)
    words = ["recap", "evaluate"]
    image = push_with_entry_point(session, values, "summarize", "evaluate", words, dry_run)

    batch = session.client("batch")
    name = f"{stack}-evaluate"
    wanted = _definition(batch, values["TrainJobDefinition"], image)
    described = batch.describe_job_definitions(jobDefinitionName=name, status="ACTIVE")
    newest = max(described["jobDefinitions"], key=lambda each: int(each["revision"]), default={})
    if all(newest.get(key) == value for key, value in wanted.items()):
        print(f"job definition {name} is there already")
        return
    print(f"job definition {name}: as {values['TrainJobDefinition']}, with {image}")
    if not dry_run:
        tags = {"recap/stack": stack, "recap/command": "evaluate"}
        batch.register_job_definition(jobDefinitionName=name, tags=tags, **wanted)


def _definition(batch: Any, training: str, image: str) -> dict[str, Any]:
    """Return the stack's definition of trainings, with another image and prefix of its logs."""
    described = batch.describe_job_definitions(jobDefinitions=[training])["jobDefinitions"]
    found: Mapping[str, Any] = described[0]
    container = found["containerProperties"] | {"image": image}
    log = container.get("logConfiguration", {})
    options = log.get("options", {}) | {"awslogs-stream-prefix": "evaluate"}
    container["logConfiguration"] = log | {"options": options}
    wanted = {key: found[key] for key in COPIED if key in found}
    return wanted | {"containerProperties": container}


if __name__ == "__main__":
    main()
