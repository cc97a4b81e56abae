"""EventBridge's patterns and messages, evaluated on events; and a state machine that one starts.

Only the parts that infra/aws uses: anything else raises ValueError.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any


def is_matched(pattern: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    """Return True if a rule with the pattern takes the event."""
    return all(
        is_matched(wanted, event.get(key) or {})
        if isinstance(wanted, Mapping)
        else any(_is_one(each, event.get(key)) for each in wanted)
        for key, wanted in pattern.items()
    )


def _is_one(wanted: Any, value: Any) -> bool:
    match wanted:
        case {"exists": bool(exists)}:
            return (value is not None) == exists
        case {"anything-but": unwanted}:
            return value is not None and value != unwanted
        case str() | int():
            return bool(value == wanted)
    raise ValueError(f"{wanted}: not understood")


def message(rule: Mapping[str, Any], event: Mapping[str, Any]) -> str:
    """Return the text that a rule's only target gets. What the event lacks is left out."""
    (target,) = rule["Properties"]["Targets"]
    transformer = target["InputTransformer"]
    values = {name: _at(path, event) or "" for name, path in transformer["InputPathsMap"].items()}
    filled = re.sub(r"<(\w+)>", lambda each: str(values[each[1]]), transformer["InputTemplate"])
    text = json.loads(filled)
    if not isinstance(text, str):
        raise ValueError(f"{filled}: not a text")
    return text


def _at(path: str, document: Any) -> Any:
    for key in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        name, number = key
        document = document[int(number)] if number else (document or {}).get(name)
    return document


def execute(
    definition: Mapping[str, Any],
    given: dict[str, Any],
    call: Callable[[str, dict[str, Any]], dict[str, Any]],
) -> list[str]:
    """Run a state machine without waiting. Return the states that it went through.

    `call` gets each task's resource and parameters, and returns its result.
    """
    states, name, data = [], definition["StartAt"], given
    while True:
        states.append(name)
        state = definition["States"][name]
        match state["Type"]:
            case "Task":
                data = call(state["Resource"], _parameters(state["Parameters"], data))
            case "Choice":
                (choice,) = state["Choices"]
                chosen = _at(choice["Variable"], data) == choice["StringEquals"]
                name = choice["Next"] if chosen else state["Default"]
                continue
            case "Wait" | "Succeed":
                pass
            case kind:
                raise ValueError(f"{kind}: not understood")
        if state.get("End") or state["Type"] == "Succeed":
            return states
        name = state["Next"]


def _parameters(parameters: Mapping[str, Any], data: Any) -> dict[str, Any]:
    return {
        key.removesuffix(".$"): _intrinsic(value, data) if key.endswith(".$") else value
        for key, value in parameters.items()
    }


def _intrinsic(text: str, data: Any) -> Any:
    if found := re.fullmatch(r"States\.Array\(([^)]*)\)", text):
        return [_at(path, data) for path in found[1].split(", ")]
    if found := re.fullmatch(r"States\.Format\('([^']*)', (.*)\)", text):
        return found[1].format(*(_at(path, data) for path in found[2].split(", ")))
    raise ValueError(f"{text}: not understood")
