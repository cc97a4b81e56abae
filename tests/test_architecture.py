"""The rules of the house, checked on the text and the syntax trees of the repository.

Each rule is one test. It looks at every file and lists all that break it.
"""

import ast
import gc
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
JOB = sorted((ROOT / "job").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
TEST_MODULES = [path for path in TESTS if path.name.startswith("test_")]

# A module imports only from lower floors, or from its own package.
FLOORS = {
    "cli": 11,
    "submit": 10,
    "feedback.commands": 10,
    "preflight": 9,
    "feedback": 8,
    "watch": 8,
    "training": 7,
    "evaluation": 6,
    "summarization": 7,
    "memory": 6,
    "inference": 5,
    "prompt": 4,
    "pages": 4,
    "model": 3,
    "launch": 4,
    "conversations": 3,
    "demo": 7,
    "storage": 2,
    "config": 1,  # below storage, which a section of it sets up
    "telemetry": 1,  # below storage, which logs its retries
    "printable": 0,
    "safe_path": 0,
    "errors": 0,
    "identity": 0,
    "pace": 0,
    "environment": 3,
    "gpus": 2,
    "arguments": 1,
}
NO_FLOOR = -1

MAX_LINES_OF_A_FILE = 400
MAX_LINES_OF_A_FUNCTION = 60
MAX_PARAMETERS = 7
MAX_LENGTH_OF_A_TEST_NAME = 70
VAGUE_WORDS = ("util", "helper", "manager", "handler")

# A docstring names an effect or a result, verb first. These words begin half a sentence.
HALF_SENTENCE = re.compile(r"(What|Whether|How|Nor|So)\b")
# "DataError if …" has no verb: "Raise DataError if …".
ERROR_WITHOUT_VERB = re.compile(r"(?:^|\.\s+)\w+Error (?:\(\w+\) )?(?:for|if|unless|where|when)\b")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@pytest.fixture(scope="module", autouse=True)
def _million_nodes() -> Iterator[None]:
    """Keep the garbage collector from looking at all nodes again and again, here and later on."""
    gc.disable()
    yield
    functions_of.cache_clear()
    tree_of.cache_clear()
    gc.enable()


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path))


@cache
def functions_of(path: Path) -> list[Function]:
    return [node for node in ast.walk(tree_of(path)) if isinstance(node, Function)]


def shown(path: Path, line: int = 1) -> str:
    """Return the path as an editor opens it."""
    return f"{path.relative_to(ROOT)}:{line}"


def fail_with(problems: list[str], rule: str) -> None:
    assert not problems, f"{rule}\n  " + "\n  ".join(problems)


# Floors


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
    """Yield line and name below `job` of every import, also inside functions and for types only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import"
            package = node.module or ""
            if package != "job" and not package.startswith("job."):
                continue
            for alias in node.names:
                whole = f"{package}.{alias.name}".removeprefix("job.")
                module = whole if is_module(whole) else package.removeprefix("job.")
                yield node.lineno, module
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("job."):
                    yield node.lineno, alias.name.removeprefix("job.")


def is_allowed(importer: str, imported: str) -> bool:
    if floor_of(imported) == floor_of(importer):
        return imported.split(".")[0] == importer.split(".")[0]
    return floor_of(imported) < floor_of(importer)


def test_every_module_has_a_floor():
    unknown = [
        shown(path)
        for path in JOB
        if name_of(path) not in ("", "__main__") and floor_of(name_of(path)) == NO_FLOOR
    ]
    fail_with(unknown, "give each module a floor in FLOORS and in docs/architecture.md:")


def test_imports_point_one_way_down():
    upward = []
    for path in JOB:
        module = name_of(path)
        if module == "__main__":
            continue
        for line, other in imports_of(tree_of(path)):
            if not is_allowed(module, other):
                floors = f"floor {floor_of(module)} imports job.{other} of {floor_of(other)}"
                upward.append(f"{shown(path, line)}: {floors}")
    fail_with(upward, "a module imports only from lower floors, or from its own package:")


def test_the_page_names_every_module_on_its_floor():
    page = text_of(ROOT / "docs" / "architecture.md")
    named = {}
    for floor, cell in re.findall(r"^\| (\d+) \| ([^|]+) \|", page, re.MULTILINE):
        for module in re.findall(r"`([^`]+)`", cell):
            named[module] = int(floor)
    assert named == FLOORS


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


# Sizes


def test_files_fit_on_a_few_screens():
    long = []
    for path in JOB:
        lines = len(text_of(path).splitlines())
        if lines > MAX_LINES_OF_A_FILE:
            long.append(f"{shown(path)}: {lines} lines")
    fail_with(long, f"a file has at most {MAX_LINES_OF_A_FILE} lines:")


def test_functions_fit_on_one_screen():
    long = []
    for path in JOB:
        for function in functions_of(path):
            lines = (function.end_lineno or 0) - function.lineno + 1
            if lines > MAX_LINES_OF_A_FUNCTION:
                long.append(f"{shown(path, function.lineno)}: {function.name} has {lines} lines")
    fail_with(long, f"a function has at most {MAX_LINES_OF_A_FUNCTION} lines:")


def test_functions_take_few_parameters():
    many = []
    for path in JOB:
        for function in functions_of(path):
            arguments = function.args
            taken = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            if len(taken) > MAX_PARAMETERS:
                many.append(f"{shown(path, function.lineno)}: {function.name} takes {len(taken)}")
    rule = f"a function takes at most {MAX_PARAMETERS} parameters (group them in a dataclass):"
    fail_with(many, rule)


# Names and docstrings


def names_defined_in(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and name of each class, function and module-level variable."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ClassDef | Function):
            yield node.lineno, node.name
    for node in tree_of(path).body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from _names_in(target)
        elif isinstance(node, ast.AnnAssign):
            yield from _names_in(node.target)


def _names_in(target: ast.expr) -> Iterator[tuple[int, str]]:
    for node in ast.walk(target):
        if isinstance(node, ast.Name):
            yield node.lineno, node.id


def test_names_say_what_a_thing_is():
    vague = []
    for path in JOB:
        named = [(1, path.stem), (1, path.parent.name), *names_defined_in(path)]
        for line, name in named:
            if any(word in name.lower() for word in VAGUE_WORDS):
                vague.append(f"{shown(path, line)}: {name}")
    fail_with(vague, f"no name holds one of {VAGUE_WORDS}: name what the thing is or does:")


def test_every_module_says_what_it_is_for():
    silent = [shown(path) for path in JOB if not ast.get_docstring(tree_of(path))]
    fail_with(silent, "a module begins with a docstring:")


def test_docstrings_begin_with_an_effect_or_a_result():
    documented = ast.Module | ast.ClassDef | Function
    half = []
    for path in JOB:
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, documented):
                continue
            docstring = ast.get_docstring(node) or ""
            if HALF_SENTENCE.match(docstring) or ERROR_WITHOUT_VERB.search(docstring):
                line = getattr(node, "lineno", 1)
                half.append(f"{shown(path, line)}: {docstring.splitlines()[0]}")
    fail_with(half, "a docstring begins with a verb (Return, Write, Block) or a noun:")


# Tests


def test_no_test_module_is_imported():
    imported = []
    for path in TESTS:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ImportFrom):
                modules = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            else:
                continue
            for module in modules:
                if re.match(r"tests\.(\w+\.)*test_", module):
                    imported.append(f"{shown(path, node.lineno)}: {module}")
    rule = "a test module is no library: move what several need to a module named for it:"
    fail_with(imported, rule)


def test_names_of_tests_fit_on_a_line():
    long = []
    for path in TEST_MODULES:
        for function in functions_of(path):
            is_test = function.name.startswith("test_")
            if is_test and len(function.name) > MAX_LENGTH_OF_A_TEST_NAME:
                where = shown(path, function.lineno)
                long.append(f"{where}: {len(function.name)} characters: {function.name}")
    fail_with(long, f"a test's name has at most {MAX_LENGTH_OF_A_TEST_NAME} characters:")


def asserts_itself(function: ast.AST) -> bool:
    """Return True if the body holds an assert or expects an error."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Attribute) and node.attr in ("raises", "warns"):  # of pytest
            return True
    return False


def names_called_in(function: ast.AST) -> set[str]:
    calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    return {called.id for called in calls if isinstance(called, ast.Name)}


def asserting_functions(trees: list[ast.Module]) -> set[ast.AST]:
    """Return the functions that assert, themselves or through a function that they call by name."""
    waiting = [node for tree in trees for node in ast.walk(tree) if isinstance(node, Function)]
    called = {function: names_called_in(function) for function in waiting}
    found: set[ast.AST] = {function for function in waiting if asserts_itself(function)}
    names = {function.name for function in waiting if function in found}
    while True:
        more = [f for f in waiting if f not in found and called[f] & names]
        if not more:
            return found
        found.update(more)
        names.update(function.name for function in more)


def test_every_test_asserts_something():
    asserting = asserting_functions([tree_of(path) for path in TESTS])
    silent = []
    for path in TEST_MODULES:
        for function in functions_of(path):
            if function.name.startswith("test_") and function not in asserting:
                silent.append(f"{shown(path, function.lineno)}: {function.name}")
    fail_with(silent, "a test that passes if nothing raises: assert what it claims:")


def test_an_assertion_in_another_function_counts():
    text = """
def check(found):
    assert found
def test_by_itself():
    with pytest.raises(ValueError):
        work(1)
def test_through_another():
    check(1)
def test_nothing():
    work(1)
"""
    asserting = asserting_functions([ast.parse(text)])
    names = {function.name for function in asserting}
    assert names == {"check", "test_by_itself", "test_through_another"}
