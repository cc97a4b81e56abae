"""What two runs differ in, told to a person. Two nested mappings → a line for each value that is not the same."""

from collections.abc import Mapping
from typing import Any


def differences(
    there: Mapping[str, Any], here: Mapping[str, Any], between: str = ".", path: str = ""
) -> list[str]:
    """Each difference as `name: value there, value here`; names of nested values are joined with `between`."""
    found: list[str] = []
    for key in [*there, *(key for key in here if key not in there)]:
        old, new, name = there.get(key), here.get(key), f"{path}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, between, f"{name}{between}")
        elif old != new:
            found.append(f"{name}: {_said(old)} there, {_said(new)} here")
    return found


def _said(value: Any) -> str:
    return "none" if value is None else str(value)
