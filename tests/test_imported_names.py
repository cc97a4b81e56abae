"""Claims about imports within the repository, in files that no other test may load.

mypy reads only `job`. What a test or a benchmark imports there may have moved since it ran last.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("job", "tests", "benchmarks", "examples", "infra")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def names_in(path: Path) -> frozenset[str]:
    """Return the names that a module has once it is imported."""
    return frozenset(bound(tree_of(path).body))


def bound(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the names that statements bind, also in the branches of an if, a try or a with."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                yield from bound([child])
            elif isinstance(child, ast.ExceptHandler):
                yield from bound(child.body)
            else:
                yield from (
                    each.id
                    for each in ast.walk(child)
                    if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
                )


def missing_from(path: Path) -> Iterator[str]:
    """Yield the imports of a file, also inside functions, that find nothing."""
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        if node.module.split(".")[0] not in PACKAGES:
            continue
        module = ROOT / Path(*node.module.split("."))
        source = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
        names = names_in(source) if source.is_file() else frozenset()
        for alias in node.names:
            inside = module / alias.name
            if alias.name in names or inside.is_dir() or inside.with_suffix(".py").is_file():
                continue
            yield f"{path.relative_to(ROOT)}:{node.lineno}: no {alias.name} in {node.module}"


def test_what_is_imported_from_the_repository_is_there():
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    assert len(files) > 800
    assert [each for path in files for each in missing_from(path)] == []


def test_a_name_that_moved_is_found(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "here.py").write_text(
        "import os\nif os:\n    A = 1\nelse:\n    def b(): c = 1\nfor D, (E, _) in []: pass\n"
    )
    user, other = tmp_path / "job" / "user.py", tmp_path / "job" / "other.py"
    user.write_text("from job.here import A, D, E, b, os\ndef f():\n    from job.here import c\n")
    assert [*missing_from(user)] == ["job/user.py:3: no c in job.here"]
    other.write_text("from job import here, gone\nfrom job.gone import A\nimport numpy\n")
    assert [*missing_from(other)] == [
        "job/other.py:1: no gone in job",
        "job/other.py:2: no A in job.gone",
    ]
