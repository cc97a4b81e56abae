"""EventBridge's patterns and messages, evaluated on events; and a state machine that one starts.

Only the parts that infra/aws uses: anything else raises ValueError.
"""

import json
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
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
        if number:
            document = dict(enumerate(document or [])).get(int(number))
        else:
            document = (document or {}).get(name)
    return document


class TaskFailed(Exception):
    """A task that failed finally, with the text of its cause."""


def execute(
    definition: Mapping[str, Any],
    given: dict[str, Any],
    call: Callable[[str, dict[str, Any]], dict[str, Any]],
) -> list[str]:
    """Run a state machine without waiting. Return the states that it went through.

    `call` gets each task's resource and parameters, and returns its result, or raises OSError, or
    TaskFailed; of a state that waits, it gets "wait" and its seconds.
    """
    states, name, data = [], definition["StartAt"], given
    while True:
        states.append(name)
        state = definition["States"][name]
        match state["Type"]:
            case "Task":
                parameters = _parameters(state["Parameters"], data)
                retries = sum(each["MaxAttempts"] for each in state.get("Retry", ()))
                try:
                    result = _with_retries(retries, call, state["Resource"], parameters)
                except TaskFailed as failed:
                    (catch,) = state["Catch"]
                    data = _with_result(data, catch, {"Error": "any", "Cause": str(failed)})
                    name = catch["Next"]
                    continue
                data = _with_result(data, state, result)
            case "Pass":
                data = _with_result(data, state, _parameters(state["Parameters"], data))
            case "Choice":
                chosen = (each["Next"] for each in state["Choices"] if _holds(each, data))
                name = next(chosen, state["Default"])
                continue
            case "Wait":
                call("wait", {"Seconds": state["Seconds"]})
            case "Succeed" | "Fail":
                return states
            case kind:
                raise ValueError(f"{kind}: not understood")
        if state.get("End"):
            return states
        name = state["Next"]


def _with_retries(retries: int, call: Callable[..., Any], *arguments: Any) -> Any:
    for _ in range(retries):
        try:
            return call(*arguments)
        except OSError:
            pass
    return call(*arguments)


def _with_result(data: Any, state: Mapping[str, Any], result: Any) -> Any:
    if "ResultPath" not in state:
        return result
    if state["ResultPath"] is None:
        return data
    return data | {state["ResultPath"].removeprefix("$."): result}


def _holds(choice: Mapping[str, Any], data: Any) -> bool:
    match choice:
        case {"Not": inner}:
            return not _holds(inner, data)
        case {"Variable": path, "IsPresent": bool(present)}:
            return (_at(path, data) is not None) == present
        case {"Variable": path, "StringEquals": str(text)}:
            return bool(_at(path, data) == text)
        case {"Variable": path, "StringMatches": str(pattern)}:
            return fnmatchcase(_at(path, data), pattern)
        case {"Variable": path, "NumericEquals": int(number)}:
            return bool(_at(path, data) == number)
        case {"Variable": path, "NumericEqualsPath": other}:
            return bool(_at(path, data) == _at(other, data))
    raise ValueError(f"{choice}: not understood")


def _parameters(parameters: Any, data: Any) -> Any:
    if isinstance(parameters, list):
        return [_parameters(each, data) for each in parameters]
    if not isinstance(parameters, Mapping):
        return parameters
    found = {}
    for key, value in parameters.items():
        if key.endswith(".$"):
            found[key.removesuffix(".$")] = _intrinsic(value, data)
        else:
            found[key] = _parameters(value, data)
    return found


def _intrinsic(text: str, data: Any) -> Any:
    if text.startswith("$."):
        return _at(text, data)
    if found := re.fullmatch(r"States\.StringToJson\(([^)]*)\)", text):
        return json.loads(_at(found[1], data))
    if found := re.fullmatch(r"States\.Array\(([^)]*)\)", text):
        return [_at(path, data) for path in found[1].split(", ")]
    if found := re.fullmatch(r"States\.ArrayLength\(([^)]*)\)", text):
        array = _at(found[1], data)
        if array is None:
            raise ValueError(f"{text}: without the array, the execution fails")
        return len(array)
    if found := re.fullmatch(r"States\.Format\('([^']*)', (.*)\)", text):
        return found[1].format(*(_at(path, data) for path in found[2].split(", ")))
    raise ValueError(f"{text}: not understood")
