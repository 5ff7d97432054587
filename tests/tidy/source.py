"""The tracked files of this repository, read once."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
BINARY = (".png", ".gif", ".ico", ".gz")


@cache
def tracked() -> tuple[str, ...]:
    """Paths as git knows them; a file that is deleted but not yet committed is left out."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return tuple(path for path in listed.split("\0") if path and (ROOT / path).is_file())


@cache
def text_of(path: str) -> str:
    return (ROOT / path).read_text("utf-8")


def texts() -> Iterator[tuple[str, str]]:
    for path in tracked():
        if not path.endswith(BINARY):
            yield path, text_of(path)


def modules(*below: str) -> Iterator[tuple[str, ast.Module]]:
    """Python files under any of the folders, parsed."""
    for path in tracked():
        if path.endswith(".py") and path.startswith(below or ""):
            yield path, parsed(path)


@cache
def parsed(path: str) -> ast.Module:
    return ast.parse(text_of(path), path)


def functions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or attribute; '' of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def imported(module: ast.Module) -> dict[str, str]:
    """Local name -> full name of everything that the module imports, wherever it does."""
    names: dict[str, str] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names.update(
                {(a.asname or a.name.split(".")[0]): (a.name if a.asname else a.name.split(".")[0]) for a in node.names}
            )
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update({(a.asname or a.name): f"{node.module}.{a.name}" for a in node.names})
    return names


def calls(module: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, full name) of every call whose name can be told: `now()` after `from x import now` is `x.now`.

    A method of something local is told with a tilde: `~random.choice` is not the module's.
    """
    names = imported(module)
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and (told := dotted(node.func)):
            first, _, rest = told.partition(".")
            full = names.get(first, f"~{first}" if rest else first)
            yield node.lineno, f"{full}.{rest}" if rest else full
