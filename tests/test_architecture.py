"""The house has floors, and a module imports only from floors below its own, or from its own package."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "job").rglob("*.py"))
FLOORS = {
    "cli": 10,
    "submit": 9,
    "preflight": 8,
    "training": 7,
    "evaluation": 6,
    "summarization": 6,
    "inference": 5,
    "prompt": 4,
    "model": 4,
    "launch": 4,
    "conversations": 3,
    "config": 3,
    "demo": 3,
    "storage": 2,
    "telemetry": 1,  # below storage, which tells of its retries
    "printable": 0,
    "safe_path": 0,
    "errors": 1,
    "identity": 1,
    "environment": 1,
    "arguments": 1,
    # What a config holds is plain data that every floor may be given; only how it is loaded stands on floor 3.
    "config.sections": 1,
    "config.training_sections": 1,
    "config.patterns": 1,
    "config.redaction": 1,
    "config.commands": 1,
}
NO_FLOOR = -1
LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 450, 60
VAGUE = ("util", "helper", "manager", "handler")


@pytest.fixture(params=FILES, ids=lambda path: path.relative_to(ROOT / "job").as_posix())
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "job").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def floor_of(module: str) -> int:
    first_two = ".".join(module.split(".")[:2])
    return FLOORS.get(first_two, FLOORS.get(module.split(".")[0], NO_FLOOR))


def is_module(name: str) -> bool:
    target = ROOT / "job" / Path(*name.split("."))
    return target.is_dir() or target.with_suffix(".py").is_file()


def imports_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name below `job` of every import, also of those inside functions and under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}".removeprefix("job.")
                if node.module == "job" or (node.module or "").startswith("job."):
                    yield (
                        node.lineno,
                        whole if is_module(whole) else (node.module or "").removeprefix("job."),
                    )
        elif isinstance(node, ast.Import):
            yield from (
                (node.lineno, n.name.removeprefix("job."))
                for n in node.names
                if n.name.startswith("job.")
            )


def test_every_module_has_a_floor(path):
    module = name_of(path)
    known = module in ("", "__main__") or floor_of(module) != NO_FLOOR
    assert known, f"job.{module} stands on no floor: give it one in FLOORS"


def test_imports_point_one_way_down(path):
    module = name_of(path)
    if module == "__main__":
        return
    wrong = [
        f"line {line}: job.{module} (floor {floor_of(module)}) imports job.{other} (floor {floor_of(other)})"
        for line, other in imports_of(ast.parse(path.read_text(encoding="utf-8")))
        if floor_of(other) > floor_of(module)
        or (floor_of(other) == floor_of(module) and other.split(".")[0] != module.split(".")[0])
    ]
    assert not wrong, "\n".join(wrong)


def test_the_page_names_every_module_on_its_floor():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", page, re.MULTILINE)
    named = {
        module: int(floor) for floor, cell in rows for module in re.findall(r"`([^`]+)`", cell)
    }
    assert named == FLOORS


def test_files_and_functions_fit_on_a_screen_or_few(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES_OF_A_FILE
    functions = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    long = [
        node.name
        for node in functions
        if (node.end_lineno or 0) - node.lineno + 1 > LINES_OF_A_FUNCTION
    ]
    assert not long, f"longer than {LINES_OF_A_FUNCTION} lines: {long}"


def test_names_say_what_a_thing_is(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = [
        node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)
    ]
    vague = [
        name
        for name in [path.stem, path.parent.name, *named]
        if any(word in name.lower() for word in VAGUE)
    ]
    assert not vague


def test_every_module_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_imports_inside_functions_and_for_types_are_seen():
    text = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from job.storage import store
def f():
    import job.cli
    from job import errors
    from job.config.sections import Section
"""
    found = {name for _, name in imports_of(ast.parse(text))}
    assert found == {"storage.store", "cli", "errors", "config.sections"}
