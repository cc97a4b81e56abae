"""The stacks of infra/aws: their templates as plain data, and resources with values filled in."""

import base64
import json
import re
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

import yaml

TEMPLATE = Path(__file__).parent.parent.parent / "infra" / "aws" / "recap.yaml"
WATCH = TEMPLATE.with_name(
    "watch.yaml"
)  # the second stack; its parameters are outputs of the first
FOLLOW = TEMPLATE.with_name("follow.yaml")  # the third, of what follows the nights
ACCOUNT, REGION, NAME = "123456789012", "us-east-1", "recap"
NODES = "TrainNodesJobDefinition"  # moto's CloudFormation takes it for a job of one node
DASHBOARD = "Dashboard"  # moto's CloudFormation makes none of the alarms that it names
# Parameters for moto, which does not split a list's default.
GIVEN = {"ImageTag": "abc", "InstanceTypes": "g6.2xlarge,g5.2xlarge"}
PSEUDO = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Region": REGION,
    "AWS::Partition": "aws",
    "AWS::NoValue": None,
}


class _Tags(yaml.CSafeLoader):
    """CloudFormation's short forms (!Ref) as their long ones ({Ref: …})."""


def _long(loader: yaml.CSafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]
    if suffix == "GetAtt":
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Tags.add_multi_constructor("!", _long)  # type: ignore[no-untyped-call]


def load(template: Path = TEMPLATE) -> dict[str, Any]:
    """The template with every short form written out."""
    return deepcopy(_parsed(template))


@cache
def _parsed(template: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(template.read_text(encoding="utf-8"), Loader=_Tags)
    return found


def resources(**parameters: str) -> dict[str, dict[str, Any]]:
    """Return type and properties of each resource that the stack has with these parameters.

    Other parameters have their defaults.
    """
    return _resources(_filled(TEMPLATE, parameters))


def outputs(**parameters: str) -> dict[str, str]:
    """Return the outputs of the stack with these parameters."""
    filled = _filled(TEMPLATE, parameters)
    return {
        name: str(filled.value(output["Value"]))
        for name, output in load()["Outputs"].items()
        if "Condition" not in output or filled.holds(output["Condition"])
    }


def resource_arn(name: str) -> str:
    """Return the made-up ARN of a resource of the first stack, as others refer to it."""
    return str(_filled(TEMPLATE, {}).value({"Ref": name}))


def refusals(**parameters: str) -> list[str]:
    """Return what CloudFormation says of these parameters, by the template's rules."""
    filled = _filled(TEMPLATE, parameters)
    return [
        assertion["AssertDescription"]
        for rule in load()["Rules"].values()
        if filled.value(rule["RuleCondition"])
        for assertion in rule["Assertions"]
        if not filled.value(assertion["Assert"])
    ]


def watching(**parameters: str) -> dict[str, dict[str, Any]]:
    """Return the resources of the second stack, as `make deploy` deploys it after the first.

    Each parameter is one of either template.
    """
    first, second = load()["Parameters"], load(WATCH)["Parameters"]
    given = {name: value for name, value in parameters.items() if name in first}
    passed = {name: value for name, value in outputs(**given).items() if name in second}
    own = {name: value for name, value in parameters.items() if name not in first}
    return _resources(_filled(WATCH, own | passed))


def following(**parameters: str) -> dict[str, dict[str, Any]]:
    """Return the resources of the third stack, as `make follow` deploys it after the first.

    Each parameter is one of either template.
    """
    first, third = load()["Parameters"], load(FOLLOW)["Parameters"]
    given = {name: value for name, value in parameters.items() if name in first}
    passed = {name: value for name, value in outputs(**given).items() if name in third}
    tag = given.get("ImageTag", "abc")
    passed["Image"] = f"{outputs(**given)['Repository']}:recap-{tag}"
    own = {name: value for name, value in parameters.items() if name in third}
    return _resources(_filled(FOLLOW, passed | own))


def both(**parameters: str) -> dict[str, dict[str, Any]]:
    """Return the resources of both stacks. Each parameter is one of the first template."""
    return resources(**parameters) | watching(**parameters)


def _resources(filled: "_Filled") -> dict[str, dict[str, Any]]:
    return {
        name: {"Type": resource["Type"], "Properties": filled.value(resource.get("Properties", {}))}
        for name, resource in filled.template["Resources"].items()
        if "Condition" not in resource or filled.holds(resource["Condition"])
    }


def _filled(path: Path, parameters: dict[str, str]) -> "_Filled":
    template = load(path)
    values = {name: str(p.get("Default")) for name, p in template["Parameters"].items()}
    unknown = parameters.keys() - values.keys()
    assert not unknown, f"the template has no {unknown}"
    needed = {name for name, p in template["Parameters"].items() if "Default" not in p}
    assert needed <= parameters.keys(), f"{needed - parameters.keys()} have no value"
    return _Filled(
        template, values | parameters, NAME if path == TEMPLATE else f"{NAME}-{path.stem}"
    )


def policy(role: str, **parameters: str) -> list[dict[str, Any]]:
    """The statements of a role, each with its actions and resources as lists."""
    everything = both(**parameters) | following(**parameters)
    (inline,) = everything[role]["Properties"]["Policies"]
    return [
        statement | {key: _listed(statement[key]) for key in ("Action", "Resource")}
        for statement in inline["PolicyDocument"]["Statement"]
    ]


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


class _Filled:
    """CloudFormation's functions, as far as this template uses them.

    A value that only AWS knows is a made-up ARN.
    """

    def __init__(self, template: dict[str, Any], parameters: dict[str, str], name: str) -> None:
        self.template = template
        self._parameters = parameters
        self._pseudo = PSEUDO | {"AWS::StackName": name}

    def holds(self, condition: str) -> bool:
        return bool(self.value(self.template["Conditions"][condition]))

    def value(self, value: Any) -> Any:
        if isinstance(value, list):
            return [item for item in map(self.value, value) if item is not None]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            (name, argument) = next(iter(value.items()))
            if name == "Ref" or name.startswith("Fn::"):
                return self._function(name.removeprefix("Fn::"), argument)
        filled = {key: self.value(item) for key, item in value.items()}
        return {key: item for key, item in filled.items() if item is not None}

    def _function(self, name: str, argument: Any) -> Any:
        match name:
            case "Ref":
                return self._reference(argument)
            case "GetAtt":
                return self._attribute(*argument)
            case "Sub":
                return self._substituted(argument)
            case "If":
                return self.value(argument[1 if self.holds(argument[0]) else 2])
            case "Equals":
                return self.value(argument[0]) == self.value(argument[1])
            case "Not":
                return not self.value(argument[0])
            case "And":
                return all(map(self.value, argument))
            case "Or":
                return any(map(self.value, argument))
            case "Select":
                return self.value(argument[1])[int(argument[0])]
            case "Split":
                return self.value(argument[1]).split(argument[0])
            case "Join":
                return argument[0].join(self.value(argument[1]))
            case "FindInMap":
                first, second, third = self.value(argument)
                return self.template["Mappings"][first][second][third]
            case "GetAZs":
                return [f"{REGION}{letter}" for letter in "abc"]
            case "Base64":
                return base64.b64encode(self.value(argument).encode()).decode()
        raise NotImplementedError(name)

    def _reference(self, name: str) -> Any:
        if name in self._pseudo:
            return self._pseudo[name]
        if name not in self._parameters:
            return self._attribute(name, "")
        value, kind = self._parameters[name], self.template["Parameters"][name]["Type"]
        return (
            [part for part in value.split(",") if part] if kind == "CommaDelimitedList" else value
        )

    def _attribute(self, resource: str, attribute: str) -> str:
        kind = self.template["Resources"][resource]["Type"]
        if attribute == "LatestVersionNumber":
            return "1"
        if kind == "AWS::S3::Bucket":
            return f"arn:aws:s3:::{NAME}-bucket" if attribute == "Arn" else f"{NAME}-bucket"
        if attribute == "RepositoryUri":
            return f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{NAME}"
        if kind == "AWS::Logs::LogGroup":
            return f"/recap/{NAME}"
        if kind == "AWS::Batch::JobQueue":
            return f"arn:aws:batch:{REGION}:{ACCOUNT}:job-queue/{resource}"
        if kind == "AWS::IAM::Role":
            return f"arn:aws:iam::{ACCOUNT}:role/{resource}"
        if kind == "AWS::Scheduler::ScheduleGroup":
            return NAME
        if kind == "AWS::SQS::Queue" and not attribute:
            return f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{NAME}-{resource}"
        if kind.startswith("AWS::EC2::"):
            return f"{kind.rpartition('::')[2].lower()}-{crc32(resource.encode()):08x}"
        return f"arn:aws:{kind.split('::')[1].lower()}:{REGION}:{ACCOUNT}:{resource}"

    def _substituted(self, argument: str | list[Any]) -> str:
        text, more = (argument, {}) if isinstance(argument, str) else argument
        known = {name: self.value(value) for name, value in more.items()}

        def one(match: re.Match[str]) -> str:
            name, _, attribute = match[1].partition(".")
            if name in known:
                return str(known[name])
            if attribute:
                return str(self._attribute(name, attribute))
            return str(self._reference(name))

        return re.sub(r"\$\{([A-Za-z:.]+)\}", one, text)


def for_moto() -> dict[str, str]:
    """Return both templates by file name, without what moto refuses and with what it requires."""
    first, second = load(), load(WATCH)
    del first["Resources"][NODES]
    del first["Outputs"][NODES]
    del second["Resources"][DASHBOARD]
    for resource in first["Resources"].values():
        if resource["Type"] == "AWS::Batch::ComputeEnvironment":
            resource["Properties"]["ServiceRole"] = {"Fn::GetAtt": ["InstanceRole", "Arn"]}
    _choose(first, _filled(TEMPLATE, {}))
    # A stack that moto makes of a change set has no outputs.
    some_arn = f"arn:aws:sns:{REGION}:{ACCOUNT}:https://{NAME}/{ACCOUNT}/{NAME}"
    for parameter in second["Parameters"].values():
        parameter.setdefault("Default", "off" if "AllowedValues" in parameter else some_arn)
    return {TEMPLATE.name: json.dumps(first), WATCH.name: json.dumps(second)}


def follow_for_moto() -> str:
    """Return the third template without what moto refuses."""
    third = load(FOLLOW)
    _choose(third, _filled(FOLLOW, dict.fromkeys(third["Parameters"], "")))
    return json.dumps(third)


def _choose(template: dict[str, Any], filled: "_Filled") -> None:
    """Replace the items of lists that have a condition: moto keeps one that is left out."""
    for resource in template["Resources"].values():
        container = resource.get("Properties", {}).get("ContainerProperties", {})
        for key in ("Environment", "ResourceRequirements"):
            items = container.get(key, [])
            chosen = [
                item for item in items if "Fn::If" not in item or filled.holds(item["Fn::If"][0])
            ]
            items[:] = [item.get("Fn::If", [None, item])[1] for item in chosen]
