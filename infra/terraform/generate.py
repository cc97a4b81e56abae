"""Write the module's variables, outputs and parameter lists from the CloudFormation templates.

Each template parameter becomes a typed variable with the template's description, default and
rules; each output of recap.yaml an output. `make docs` runs it, and a test compares the files with
the templates, so that the two cannot drift.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
AWS = FOLDER.parent / "aws"
TYPES = {"Number": "number", "CommaDelimitedList": "list(string)"}  # any other is a string
# Parameters that are neither a variable nor an output.
EXPRESSIONS = {
    "Image": '"${data.aws_cloudformation_stack.recap.outputs["Repository"]}:recap-${var.image_tag}"'
}
HEADER = "# Written by generate.py from the templates in infra/aws: `make docs`.\n"


def main() -> None:
    """Write every generated file."""
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def files() -> dict[str, str]:
    """Return the text of each generated file by its name."""
    recap, watch, follow = load("recap.yaml"), load("watch.yaml"), load("follow.yaml")
    parameters = dict(recap["Parameters"])
    for name, parameter in [*watch["Parameters"].items(), *follow["Parameters"].items()]:
        if name not in recap["Outputs"] and name not in EXPRESSIONS:
            parameters.setdefault(name, parameter)
    variables = [_variable(name, parameter) for name, parameter in parameters.items()]
    outputs = [_output(name, output) for name, output in recap["Outputs"].items()]
    return {
        "parameters.tf": HEADER + "\n" + "\n".join(variables) + _locals(recap, watch, follow),
        "outputs.tf": HEADER + "\n" + "\n".join(outputs),
    }


def load(template: str) -> dict[str, Any]:
    """Return a template of infra/aws. Its functions are None: parameters and names have none."""
    text = (AWS / template).read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.load(text, Loader=_WithoutFunctions)
    return found


class _WithoutFunctions(yaml.SafeLoader):
    pass


_WithoutFunctions.add_multi_constructor("!", lambda loader, suffix, node: None)


def snake(name: str) -> str:
    """Return Terraform's form of a parameter's name: MemoryMiB is memory_mib."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.replace("iB", "ib")).lower()


def _output(name: str, output: dict[str, Any]) -> str:
    description = output.get("Description") or f"The stack's output {name}."
    return (
        f'output "{snake(name)}" {{\n'
        f"  description = {_quoted(description)}\n"
        f"  value       = {_of_recap(name)}\n"
        "}\n"
    )


def _of_recap(output: str) -> str:
    """Return the expression of an output, null if it has a condition that does not hold."""
    return f'lookup(data.aws_cloudformation_stack.recap.outputs, "{output}", null)'


def _variable(name: str, parameter: dict[str, Any]) -> str:
    kind = TYPES.get(parameter["Type"], "string")
    default = parameter.get("Default")
    lines = [
        f'variable "{snake(name)}" {{',
        f"  description = {_quoted(parameter['Description'])}",
        f"  type        = {kind}",
    ]
    if default is not None:
        lines.append(f"  default     = {_value(default, kind)}")
    lines.append("  nullable    = false")
    for condition, rule in _rules(name, parameter):
        lines += [
            "",
            "  validation {",
            f"    condition     = {condition}",
            f"    error_message = {_quoted(f'The value of {snake(name)} must {rule}.')}",
            "  }",
        ]
    return "\n".join([*lines, "}", ""])


def _rules(name: str, parameter: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the template's rules for a value, each as a condition and in words."""
    variable = f"var.{snake(name)}"
    found = []
    if allowed := parameter.get("AllowedValues"):
        kind = TYPES.get(parameter["Type"], "string")
        values = ", ".join(_value(value, kind) for value in allowed)
        found.append((f"contains([{values}], {variable})", f"be one of {_listed(allowed)}"))
    if pattern := parameter.get("AllowedPattern"):
        condition = f"can(regex({_quoted(f'^(?:{pattern})$')}, {variable}))"
        found.append((condition, f"match {pattern}"))
    if "MinValue" in parameter:
        low = parameter["MinValue"]
        found.append((f"{variable} >= {low}", f"be at least {low}"))
    if "MaxValue" in parameter:
        high = parameter["MaxValue"]
        found.append((f"{variable} <= {high}", f"be at most {high}"))
    return found


def _listed(values: list[Any]) -> str:
    return ", ".join(map(str, values))


def _locals(recap: dict[str, Any], watch: dict[str, Any], follow: dict[str, Any]) -> str:
    of_recap = {name: _argument(name, p) for name, p in recap["Parameters"].items()}
    maps = [
        _map("recap", of_recap),
        _map("watch", _later_arguments(recap, watch)),
        _map("follow", _later_arguments(recap, follow)),
    ]
    return "\nlocals {\n" + "\n\n".join(maps) + "\n}\n"


def _later_arguments(recap: dict[str, Any], later: dict[str, Any]) -> dict[str, str]:
    """Return the value of each parameter of a stack after the first, as an expression.

    An output with a condition is not always there, so its variable is taken.
    """
    found = {}
    for name, parameter in later["Parameters"].items():
        if name in EXPRESSIONS:
            found[name] = EXPRESSIONS[name]
        elif name in recap["Outputs"] and "Condition" not in recap["Outputs"][name]:
            found[name] = _of_recap(name)
        else:
            found[name] = _argument(name, parameter)
    return found


def _argument(name: str, parameter: dict[str, Any]) -> str:
    variable = f"var.{snake(name)}"
    if parameter["Type"] == "CommaDelimitedList":
        return f'join(",", {variable})'
    return variable


def _map(name: str, values: dict[str, str]) -> str:
    width = max(map(len, values))
    lines = [f"    {key:{width}} = {value}" for key, value in values.items()]
    return "\n".join([f"  {name}_parameters = {{", *lines, "  }"])


def _value(value: Any, kind: str) -> str:
    if kind == "number":
        return str(value)
    if kind == "list(string)":
        items = [item for item in str(value).split(",") if item]
        return f"[{', '.join(map(_quoted, items))}]"
    return _quoted(str(value))


def _quoted(text: str) -> str:
    """Return a string literal of HCL, in which ${ and %{ would begin an expression."""
    quoted = json.dumps(text, ensure_ascii=False)
    return quoted.replace("${", "$${").replace("%{", "%%{")


if __name__ == "__main__":
    sys.exit(main())
