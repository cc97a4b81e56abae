"""Claims about what ends a job with 64 or 66: a plan asks it, or the page says why it cannot."""

import ast
from pathlib import Path

import pytest

from tests.preflight.endings import (
    ASKED_BY_PLANS,
    KNOWN_BY_THE_JOB_ALONE,
    NOT_ASKED_BY,
    OF_THE_MACHINE,
)
from tests.preflight.reach import reachable_from

ROOT = Path(__file__).parents[2]
# The packages of a job that compute. Places are read and written by `storage` alone, which a plan
# uses too, and a config is read before either begins.
PACKAGES = (
    "evaluation",
    "gpus",
    "inference",
    "launch",
    "memory",
    "model",
    "prompt",
    "summarization",
    "training",
)
ERRORS = ("ConfigError", "MissingError")  # 64 and 66


def makers(node: ast.AST, function: str = "") -> set[str]:
    """Return the names of the functions in which such an error is made."""
    found = set()
    for child in ast.iter_child_nodes(node):
        name = child.name if isinstance(child, ast.FunctionDef) else function
        is_call = isinstance(child, ast.Call) and isinstance(child.func, ast.Name)
        if is_call and child.func.id in ERRORS:
            found.add(name)
        found |= makers(child, name)
    return found


def test_each_end_of_a_job_is_asked_by_its_plan_or_has_a_reason():
    found = set()
    for package in PACKAGES:
        for file in (ROOT / "job" / package).rglob("*.py"):
            module = file.relative_to(ROOT / "job").with_suffix("").as_posix()
            found |= {f"{module}.{name}" for name in makers(ast.parse(file.read_text("utf-8")))}
    listed = [*ASKED_BY_PLANS.split(), *OF_THE_MACHINE.split()]
    for names in KNOWN_BY_THE_JOB_ALONE.values():
        listed += names.split()
    assert len(listed) == len(set(listed))
    assert found == set(listed), "a new end of a job: let the plan ask the same function, if it can"


@pytest.mark.parametrize("command", NOT_ASKED_BY)
def test_the_plan_of_a_command_can_reach_each_end_that_it_is_said_to_ask(command):
    """By calls from that plan: what another command's plan asks does not count."""
    reached = reachable_from(command)
    assert set(ASKED_BY_PLANS.split()) - reached == set(NOT_ASKED_BY[command].split())
    assert "training/own_head.check_looks_back" not in reached


def test_the_page_has_each_reason_why_a_plan_cannot_know():
    page = " ".join((ROOT / "docs" / "plan.md").read_text("utf-8").split())
    assert not [reason for reason in KNOWN_BY_THE_JOB_ALONE if f"| {reason} |" not in page]
