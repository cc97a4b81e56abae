"""Claims about library_lines.py: the libraries have every line, and none is forgotten."""

import ast
import importlib
import inspect
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import job.training
from job.training.judged import JudgedTrainer
from job.training.methods import SummaryTrainer
from job.training.preferences import PairTrainer, PreferenceTrainer, ThumbTrainer
from job.training.reward import RewardModelTrainer
from job.training.trainer import RecapTrainer
from tests.training.library_lines import ATTRIBUTES, OVERRIDES, LibraryLine

LINES = OVERRIDES + ATTRIBUTES
TRAINERS = [
    RecapTrainer,
    SummaryTrainer,
    JudgedTrainer,
    PreferenceTrainer,
    PairTrainer,
    ThumbTrainer,
    RewardModelTrainer,
]
TRAINING = sorted(Path(job.training.__file__).parent.glob("*.py"))


def found_at(name: str, package: str = "") -> Any:
    """Return the object that `module:object.attribute` names. Raise if there is none."""
    module, _, path = name.partition(":")
    found = importlib.import_module(package + module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def in_one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("entry", LINES, ids=lambda entry: f"{entry.used_by} {entry.function}")
def test_the_library_still_has_the_line(entry: LibraryLine) -> None:
    source = in_one_line(inspect.getsource(found_at(entry.function)))
    library = entry.function.partition(".")[0]
    assert in_one_line(entry.line) in source, (
        f"{library} {version(library)}: {entry.function} has no more\n  {entry.line}\n"
        f"Check {entry.used_by} again. {entry.without}"
    )


@pytest.mark.parametrize("entry", LINES, ids=lambda entry: f"{entry.used_by} {entry.function}")
def test_who_relies_on_a_line_is_named_as_it_is_today(entry: LibraryLine) -> None:
    assert callable(found_at(entry.used_by, "job.training."))


@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_override_of_a_trainer_has_its_line(trainer: Any) -> None:
    libraries = [base for base in trainer.mro() if not base.__module__.startswith("job.")]
    inherited = {name for base in libraries for name in vars(base)}
    inherited.remove("__init__")  # it takes what TRL's trainers take, which is their API
    name = f"{trainer.__module__.removeprefix('job.training.')}:{trainer.__name__}."
    overridden = set()
    for attribute, value in vars(trainer).items():
        if inspect.isfunction(value) and attribute in inherited:
            overridden.add(name + attribute)
    assert overridden or trainer is not RecapTrainer
    lines = {entry.used_by for entry in OVERRIDES if entry.used_by.startswith(name)}
    assert overridden == {line for line in lines if line.removeprefix(name) in inherited}


def private_names(tree: ast.AST) -> tuple[set[str], set[str]]:
    """Return the names with one leading underscore that the code reads or sets, and defines."""
    used = set()
    defined = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.Attribute):
            used.add(node.attr)
            is_own = isinstance(node.value, ast.Name) and node.value.id == "self"
            if is_own and isinstance(node.ctx, ast.Store):
                defined.add(node.attr)
    return used, defined


def test_every_private_name_of_a_library_is_in_a_line() -> None:
    foreign = set()
    for path in TRAINING:
        # By file: the same name may be recap's own in one and a library's in another.
        used, defined = private_names(ast.parse(path.read_text(encoding="utf-8")))
        for name in used - defined:
            if name.startswith("_") and not name.startswith("__"):
                foreign.add(name)
    foreign -= {"_exit", "_fields", "_make", "_replace"}  # public names, of os and of named tuples
    text = " ".join(entry.line for entry in LINES)
    assert {"_tr_loss", "_last_lr"} <= foreign
    missing = [name for name in sorted(foreign) if not re.search(rf"\b{name}\b", text)]
    assert missing == []
