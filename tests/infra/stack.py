"""The stack of infra/aws: the template as plain data, and its resources with values filled in."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import yaml

TEMPLATE = Path(__file__).parent.parent.parent / "infra" / "aws" / "recap.yaml"
ACCOUNT, REGION, NAME = "123456789012", "us-east-1", "recap"
NODES = "TrainNodesJobDefinition"  # moto's CloudFormation takes it for a job of one node
# Parameters for moto, which does not split a list's default.
GIVEN = {"ImageTag": "abc", "InstanceTypes": "g6.2xlarge,g5.2xlarge"}
PSEUDO = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Region": REGION,
    "AWS::Partition": "aws",
    "AWS::StackName": NAME,
    "AWS::NoValue": None,
}


class _Tags(yaml.SafeLoader):
    """CloudFormation's short forms (!Ref) as their long ones ({Ref: …})."""


def _long(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
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


def load() -> dict[str, Any]:
    """The template with every short form written out."""
    found: dict[str, Any] = yaml.load(TEMPLATE.read_text(encoding="utf-8"), Loader=_Tags)
    return found


def resources(**parameters: str) -> dict[str, dict[str, Any]]:
    """Return type and properties of each resource that the stack has with these parameters.

    Other parameters have their defaults.
    """
    template = load()
    values = {
        name: parameters.pop(name, str(p["Default"])) for name, p in template["Parameters"].items()
    }
    assert not parameters, f"the template has no {parameters}"
    filled = _Filled(template, values)
    return {
        name: {"Type": resource["Type"], "Properties": filled.value(resource.get("Properties", {}))}
        for name, resource in template["Resources"].items()
        if "Condition" not in resource or filled.holds(resource["Condition"])
    }


def policy(role: str, **parameters: str) -> list[dict[str, Any]]:
    """The statements of a role, each with its actions and resources as lists."""
    (inline,) = resources(**parameters)[role]["Properties"]["Policies"]
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

    def __init__(self, template: dict[str, Any], parameters: dict[str, str]) -> None:
        self._template, self._parameters = template, parameters

    def holds(self, condition: str) -> bool:
        return bool(self.value(self._template["Conditions"][condition]))

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
            case "Select":
                return self.value(argument[1])[int(argument[0])]
            case "GetAZs":
                return [f"{REGION}{letter}" for letter in "abc"]
            case "Base64":
                return base64.b64encode(argument.encode()).decode()
        raise NotImplementedError(name)

    def _reference(self, name: str) -> Any:
        if name in PSEUDO:
            return PSEUDO[name]
        if name not in self._parameters:
            return self._attribute(name, "")
        value, kind = self._parameters[name], self._template["Parameters"][name]["Type"]
        return (
            [part for part in value.split(",") if part] if kind == "CommaDelimitedList" else value
        )

    def _attribute(self, resource: str, attribute: str) -> str:
        kind = self._template["Resources"][resource]["Type"]
        if attribute == "LatestVersionNumber":
            return "1"
        if kind == "AWS::S3::Bucket":
            return f"arn:aws:s3:::{NAME}-bucket" if attribute == "Arn" else f"{NAME}-bucket"
        if attribute == "RepositoryUri":
            return f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{NAME}"
        if kind == "AWS::Logs::LogGroup":
            return f"/recap/{NAME}"
        if kind.startswith("AWS::EC2::"):
            return f"{kind.rpartition('::')[2].lower()}-0123456789abcdef0"
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


def for_moto() -> str:
    """Return the template without what moto refuses, and with the service role that it requires."""
    template = load()
    del template["Resources"][NODES]
    del template["Outputs"][NODES]
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Batch::ComputeEnvironment":
            resource["Properties"]["ServiceRole"] = {"Fn::GetAtt": ["InstanceRole", "Arn"]}
    return json.dumps(template)
