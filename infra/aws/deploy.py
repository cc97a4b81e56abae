"""Deploy both stacks: show the change set of each with its parameters, ask, and execute it.

`make deploy` runs it. First recap.yaml, as the stack of the given name, then watch.yaml, as that
name with -watch, whose parameters are outputs of the first. Parameters that are not named keep
their values; the first time, they have the template's defaults.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError, WaiterError

STACKS = {"recap.yaml": "", "watch.yaml": "-watch"}  # what a template's stack adds to the name
TARGETS = ("train", "summarize")  # a tag of each: <target>-<tag>
DIRTY = "-dirty"  # how `git describe` ends for a working tree with changes
NOTHING = ("didn't contain changes", "No updates are to be performed")


class RefusedError(Exception):
    """The stack cannot be deployed; the message has the reason and the remedy."""


def main() -> None:
    """Read the command line and deploy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stack", default="recap")
    parser.add_argument("--tag", required=True, help="of the images")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE")
    given = parser.parse_args()
    try:
        deploy(
            boto3.session.Session(),
            given.stack,
            [*given.parameters, f"ImageTag={given.tag}"],
            given.yes,
        )
    except (RefusedError, BotoCoreError, ClientError) as error:
        sys.exit(f"error: {error}")


def deploy(
    session: Any,
    stack: str,
    parameters: Sequence[str],
    yes: bool,
    templates: Mapping[str, str] | None = None,
) -> None:
    """Create or change both stacks, and print their outputs. Raise RefusedError if it cannot be.

    `templates` has the text of each template by file name, if it is not the file's.
    """
    cloudformation = session.client("cloudformation")
    templates = templates or {
        name: Path(__file__).with_name(name).read_text(encoding="utf-8") for name in STACKS
    }
    named = _parse_parameters(parameters)
    known = {name: _known(cloudformation, template) for name, template in templates.items()}
    either = set().union(*known.values())
    if unknown := sorted(named.keys() - either):
        raise RefusedError(
            f"the templates have no parameter {unknown[0]}; they have {', '.join(sorted(either))}"
        )
    if named["ImageTag"].endswith(DIRTY):
        raise RefusedError(
            f"{named['ImageTag']}: such images are never pushed: commit first, or name others "
            "with TAG=…"
        )
    if before := find(cloudformation, stack):
        _check_images(session.client("ecr"), outputs(before)["Repository"], named["ImageTag"])
    passed: dict[str, str] = {}
    for name, template in templates.items():
        values = named | passed
        values = {key: values[key] for key in values.keys() & known[name]}
        passed |= _deploy_one(cloudformation, stack + STACKS[name], template, values, yes)


def _deploy_one(
    cloudformation: Any, stack: str, template: str, named: dict[str, str], yes: bool
) -> dict[str, str]:
    """Create or change one stack, and print and return its outputs."""
    before = find(cloudformation, stack)
    change = _change_set(cloudformation, stack, before, named, template)
    if change is None:
        print(f"stack {stack} is as it should be")
        return outputs(before or {})
    print("\n".join(map(_line, change["Changes"])))
    if not yes and not _confirm(f"Change stack {stack} so? [y/N] "):
        _discard(cloudformation, change, before)
        raise RefusedError(f"nothing of stack {stack} was changed")
    _execute(cloudformation, change, before)
    after = outputs(find(cloudformation, stack) or {})
    for name, value in after.items():
        print(f"{name:24} {value}")
    return after


def find(cloudformation: Any, stack: str) -> dict[str, Any] | None:
    """Return CloudFormation's description of the stack; None if it was never created."""
    try:
        found: dict[str, Any] = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
    except ClientError as error:
        # CloudFormation's code for a stack that does not exist.
        if error.response["Error"]["Code"] == "ValidationError":
            return None
        raise
    return None if found["StackStatus"] == "REVIEW_IN_PROGRESS" else found


def outputs(found: dict[str, Any]) -> dict[str, str]:
    """Return the stack's outputs by name."""
    return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", ())}


def _parse_parameters(parameters: Sequence[str]) -> dict[str, str]:
    wrong = [text for text in parameters if "=" not in text]
    if wrong:
        raise RefusedError(f"'{wrong[0]}' is not NAME=VALUE")
    return dict(text.split("=", 1) for text in parameters)


def images_there(ecr: Any, repository: str, tag: str) -> list[str]:
    """Return the targets whose image of this tag is in the repository at this URI."""
    there = []
    for target in TARGETS:
        with suppress(ecr.exceptions.ImageNotFoundException):
            image = {"imageTag": f"{target}-{tag}"}
            ecr.describe_images(repositoryName=repository.partition("/")[2], imageIds=[image])
            there.append(target)
    return there


def _check_images(ecr: Any, repository: str, tag: str) -> None:
    """Raise RefusedError if an image is missing: a working stack must not lose its images."""
    there = images_there(ecr, repository, tag)
    if missing := [f"{target}-{tag}" for target in TARGETS if target not in there]:
        raise RefusedError(
            f"{repository} lacks {' and '.join(missing)}: `make push` first, or name others "
            "with TAG=…"
        )


def _known(cloudformation: Any, template: str) -> set[str]:
    """Return the names of the template's parameters."""
    summary = cloudformation.get_template_summary(TemplateBody=template)
    return {parameter["ParameterKey"] for parameter in summary["Parameters"]}


def _change_set(
    cloudformation: Any,
    stack: str,
    before: dict[str, Any] | None,
    named: dict[str, str],
    template: str,
) -> dict[str, Any] | None:
    """Create a change set and return it with its changes; None if there is nothing to change."""
    known = _known(cloudformation, template)
    kept = {
        parameter["ParameterKey"] for parameter in (before or {}).get("Parameters", ())
    } & known - named.keys()
    id = cloudformation.create_change_set(
        StackName=stack,
        ChangeSetName=f"deploy-{int(time.time())}",
        ChangeSetType="UPDATE" if before else "CREATE",
        TemplateBody=template,
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[
            {"ParameterKey": name, "ParameterValue": value} for name, value in named.items()
        ]
        + [{"ParameterKey": name, "UsePreviousValue": True} for name in sorted(kept)],
        **({} if before else {"OnStackFailure": "DELETE"}),
    )["Id"]
    try:
        cloudformation.get_waiter("change_set_create_complete").wait(
            ChangeSetName=id, WaiterConfig={"Delay": 3}
        )
    except WaiterError as error:
        reason = error.last_response.get("StatusReason", "")
        cloudformation.delete_change_set(ChangeSetName=id)
        if any(text in reason for text in NOTHING):
            return None
        raise RefusedError(f"CloudFormation refuses the change: {reason}") from error
    changes: dict[str, Any] = cloudformation.describe_change_set(ChangeSetName=id)
    return changes


def _line(change: dict[str, Any]) -> str:
    resource = change["ResourceChange"]
    replaced = "  REPLACED" if resource.get("Replacement") == "True" else ""
    name = resource["LogicalResourceId"]
    return f"{resource['Action']:8} {name:26} {resource['ResourceType']}{replaced}"


def _confirm(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:  # no terminal
        return False


def _discard(cloudformation: Any, change: dict[str, Any], before: dict[str, Any] | None) -> None:
    cloudformation.delete_change_set(ChangeSetName=change["ChangeSetId"])
    if not before:
        cloudformation.delete_stack(StackName=change["StackId"])


def _execute(cloudformation: Any, change: dict[str, Any], before: dict[str, Any] | None) -> None:
    stack, began = change["StackId"], time.time()
    cloudformation.execute_change_set(ChangeSetName=change["ChangeSetId"])
    print("under way: some minutes")
    waiter = cloudformation.get_waiter(
        "stack_update_complete" if before else "stack_create_complete"
    )
    try:
        waiter.wait(StackName=stack, WaiterConfig={"Delay": 10, "MaxAttempts": 360})
    except WaiterError as error:
        events = cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
        failed = [event for event in events if event["ResourceStatus"].endswith("_FAILED")]
        lines = [
            f"  {event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}"
            for event in failed
            if event["Timestamp"].timestamp() >= began
        ]
        raise RefusedError(
            "\n".join(["it failed, and is rolled back:", *reversed(lines)])
        ) from error


if __name__ == "__main__":
    main()
