"""The functions of recap that a plan may call, by the source: names that imports resolve."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

JOB = Path(__file__).parents[2] / "job"
Place = tuple[str, str]  # a module, as `model/load`, and a name in it


@dataclass(frozen=True)
class Module:
    """The tree of a module, the places of what it imports from recap, and its own definitions."""

    tree: ast.Module
    imported: dict[str, Place]
    defined: dict[str, ast.stmt]


@cache
def read(name: str) -> Module | None:
    """Return the module, None for a package or what is no module of recap's."""
    file = JOB / f"{name}.py"
    if not file.is_file():
        return None
    tree = ast.parse(file.read_text("utf-8"))
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("job."):
            module = str(node.module).removeprefix("job.").replace(".", "/")
            imported |= {alias.asname or alias.name: (module, alias.name) for alias in node.names}
    defined: dict[str, ast.stmt] = {}
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            defined[statement.name] = statement
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            names = [node.id for node in ast.walk(statement) if isinstance(node, ast.Name)]
            defined |= dict.fromkeys(names, statement)
    return Module(tree, imported, defined)


def places_in(node: ast.AST, name: str, module: Module) -> Iterator[Place]:
    """Yield the places of recap that a part of a module names."""
    for each in ast.walk(node):
        if isinstance(each, ast.Name) and each.id in module.defined:
            yield name, each.id
        elif isinstance(each, ast.Name) and each.id in module.imported:
            yield module.imported[each.id]
        elif isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name):
            package, inner = module.imported.get(each.value.id, ("", ""))
            yield f"{package}/{inner}", each.attr


def reachable_from(start: str) -> set[str]:
    """Return what a function may call, directly or not; names are as `model/load.load_base`."""
    module_of_start, function = start.split(".")
    waiting: list[Place] = [(module_of_start, function)]
    reached: set[Place] = set()
    while waiting:
        place = waiting.pop()
        if place in reached:
            continue
        reached.add(place)
        name, what = place
        module = read(name)
        if module is not None and what in module.defined:
            waiting += places_in(module.defined[what], name, module)
    return {f"{name}.{what}" for name, what in reached}
