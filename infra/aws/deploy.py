"""Deploy both stacks: show the change set of each with its parameters, ask once, and execute them.

`make deploy` runs it. First recap.yaml, as the stack of the given name, then watch.yaml, as that
name with -watch, whose parameters are outputs of the first. Parameters that are not named keep
their values; the first time, they have the template's defaults. It needs boto3 and nothing else.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError, WaiterError

STACKS = {"recap.yaml": "", "watch.yaml": "-watch"}  # what a template's stack adds to the name
RECAP, WATCH = STACKS
TARGETS = ("train", "summarize")  # a tag of each: <target>-<tag>
DIRTY = "-dirty"  # how `git describe` ends for a working tree with changes
NETWORK = ("VpcId", "SubnetIds", "SecurityGroupIds")  # parameters that need one another
TAG = "recap/stack"  # on everything in both stacks, for cost allocation
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
    named = parse_parameters(parameters)
    recap = Stack(cloudformation, stack, templates[RECAP], stack)
    watch = Stack(cloudformation, stack + STACKS[WATCH], templates[WATCH], stack)
    if unknown := sorted(named.keys() - recap.parameters.keys() - watch.parameters.keys()):
        known = ", ".join(sorted(recap.parameters.keys() | watch.parameters.keys()))
        raise RefusedError(f"the templates have no parameter {unknown[0]}; they have {known}")
    if named["ImageTag"].endswith(DIRTY):
        raise RefusedError(
            f"{named['ImageTag']}: such images are never pushed: commit first, or name others "
            "with TAG=…"
        )
    if recap.before:
        repository = outputs(recap.before)["Repository"]
        _check_images(session.client("ecr"), repository, named["ImageTag"])
    network = {key: named.get(key, recap.value(key)) for key in NETWORK}
    check_network(network)
    types = named.get("InstanceTypes") or recap.value("InstanceTypes")
    _check_types(session.client("ec2"), types.split(","))

    passed = outputs(recap.before or {})
    recap.plan(named)
    watch.plan(named | passed)
    show(recap, watch)
    if recap.change or watch.change or watch.missing:
        if not yes and not confirm("Change it so? [y/N] "):
            recap.discard()
            watch.discard()
            raise RefusedError("nothing was changed")
        recap.execute()
        if outputs(recap.before or {}) != passed or watch.missing:
            watch.discard()
            watch.plan(named | outputs(recap.before or {}))
        watch.execute()
    for name, value in outputs(recap.before or {}).items():
        print(f"{name:24} {value}")


def show(*stacks: "Stack") -> None:
    """Print what would change in each stack."""
    for each in stacks:
        if each.change:
            print(f"stack {each.name}:")
            print("\n".join(map(_line, each.change["Changes"])))
        elif each.missing:
            # Its parameters are outputs that the first stack does not have yet.
            kinds = ", ".join(sorted(set(each.kinds)))
            print(f"stack {each.name}, after it, with {kinds}")
        else:
            print(f"stack {each.name} is as it should be")


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


def parse_parameters(parameters: Sequence[str]) -> dict[str, str]:
    """Return the values of NAME=VALUE by name. Raise RefusedError for any other text."""
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


def check_network(network: Mapping[str, str]) -> None:
    """Raise RefusedError for a part of a network; `network` has the values of NETWORK."""
    others = [key for key in NETWORK if key != "VpcId" and network[key]]
    if others and not network["VpcId"]:
        raise RefusedError(f"{' and '.join(others)} without VpcId: name the VPC too")
    if network["VpcId"] and not network["SubnetIds"]:
        raise RefusedError("VpcId without SubnetIds: name the subnets of the machines too")


def _check_types(ec2: Any, types: Sequence[str]) -> None:
    """Raise RefusedError if the region lacks a type: Batch would refuse the machines."""
    named = [each for each in types if "." in each]  # any other is a family of types
    if not named:
        return
    query = ec2.get_paginator("describe_instance_type_offerings")
    pages = query.paginate(Filters=[{"Name": "instance-type", "Values": named}])
    there = {each["InstanceType"] for page in pages for each in page["InstanceTypeOfferings"]}
    if missing := [each for each in named if each not in there]:
        raise RefusedError(
            f"{ec2.meta.region_name} has no {' and no '.join(missing)}: name types that it has "
            "with PARAMETERS='InstanceTypes=…' (aws ec2 describe-instance-type-offerings)"
        )


@dataclass
class Stack:
    """One of the two stacks: as it was before, and its change set."""

    cloudformation: Any
    name: str
    template: str
    tag: str  # the name of the first stack

    def __post_init__(self) -> None:
        summary = self.cloudformation.get_template_summary(TemplateBody=self.template)
        self.parameters = {each["ParameterKey"]: each for each in summary["Parameters"]}
        self.kinds: list[str] = summary["ResourceTypes"]
        self.before = find(self.cloudformation, self.name)
        self.change: dict[str, Any] | None = None
        self.missing: set[str] = set()

    def value(self, name: str) -> str:
        """Return a parameter's value in the stack, or else its default."""
        for parameter in (self.before or {}).get("Parameters", ()):
            if parameter["ParameterKey"] == name:
                return str(parameter["ParameterValue"])
        return str(self.parameters[name]["DefaultValue"])

    def plan(self, values: Mapping[str, str]) -> None:
        """Create a change set, if there is something to change.

        Set `missing` instead if parameters have neither a value nor a default. Raise RefusedError
        if CloudFormation refuses the change.
        """
        named = {name: values[name] for name in values.keys() & self.parameters.keys()}
        old = {each["ParameterKey"] for each in (self.before or {}).get("Parameters", ())}
        kept = old & self.parameters.keys() - named.keys()
        needed = {name for name, each in self.parameters.items() if "DefaultValue" not in each}
        self.missing = needed - named.keys() - kept
        if self.missing:
            return
        parameters: list[dict[str, Any]] = [
            {"ParameterKey": name, "ParameterValue": value} for name, value in named.items()
        ]
        parameters += [{"ParameterKey": name, "UsePreviousValue": True} for name in sorted(kept)]
        id = self.cloudformation.create_change_set(
            StackName=self.name,
            ChangeSetName=f"deploy-{int(time.time())}",
            ChangeSetType="UPDATE" if self.before else "CREATE",
            TemplateBody=self.template,
            Capabilities=["CAPABILITY_IAM"],
            Parameters=parameters,
            Tags=[{"Key": TAG, "Value": self.tag}],
            **({} if self.before else {"OnStackFailure": "DELETE"}),
        )["Id"]
        try:
            waiter = self.cloudformation.get_waiter("change_set_create_complete")
            waiter.wait(ChangeSetName=id, WaiterConfig={"Delay": 3})
        except WaiterError as error:
            reason = error.last_response.get("StatusReason", "")
            self.cloudformation.delete_change_set(ChangeSetName=id)
            if any(text in reason for text in NOTHING):
                return
            raise RefusedError(f"CloudFormation refuses the change: {reason}") from error
        self.change = self.cloudformation.describe_change_set(ChangeSetName=id)

    def discard(self) -> None:
        """Delete the change set, and the stack if it was made for it."""
        if self.change:
            self.cloudformation.delete_change_set(ChangeSetName=self.change["ChangeSetId"])
            if not self.before:
                self.cloudformation.delete_stack(StackName=self.change["StackId"])
        self.change = None

    def execute(self) -> None:
        """Execute the change set and wait for its end. Raise RefusedError if it fails."""
        if not self.change:
            return
        stack, began = self.change["StackId"], time.time()
        self.cloudformation.execute_change_set(ChangeSetName=self.change["ChangeSetId"])
        print(f"stack {self.name} is under way: some minutes")
        kind = "stack_update_complete" if self.before else "stack_create_complete"
        try:
            waiter = self.cloudformation.get_waiter(kind)
            waiter.wait(StackName=stack, WaiterConfig={"Delay": 10, "MaxAttempts": 360})
        except WaiterError as error:
            raise RefusedError(
                "\n".join(["it failed, and is rolled back:", *self._failures(stack, began)])
            ) from error
        self.before = find(self.cloudformation, self.name)
        self.change = None

    def _failures(self, stack: str, began: float) -> list[str]:
        events = self.cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
        lines = []
        for event in reversed(events):
            is_new = event["Timestamp"].timestamp() >= began
            if is_new and event["ResourceStatus"].endswith("_FAILED"):
                reason = event.get("ResourceStatusReason", "")
                lines.append(f"  {event['LogicalResourceId']}: {reason}")
        return lines


def _line(change: dict[str, Any]) -> str:
    resource = change["ResourceChange"]
    replaced = "  REPLACED" if resource.get("Replacement") == "True" else ""
    name = resource["LogicalResourceId"]
    return f"{resource['Action']:8} {name:26} {resource['ResourceType']}{replaced}"


def confirm(question: str) -> bool:
    """Ask a question on the terminal. Return True for yes; False also without a terminal."""
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:  # no terminal
        return False


if __name__ == "__main__":
    main()
