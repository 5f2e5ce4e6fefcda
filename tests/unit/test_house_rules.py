"""The house rules that no linter knows."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "broker"
SURVEY_NAMES = sorted(path.parent.name for path in (SOURCE / "surveys").glob("*/schema_map.yaml"))
DOORS = {"ztf_archive.py"}
"""Modules whose names the documents promise."""

MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60


def python_files() -> list[Path]:
    """List the package's files."""
    return sorted(path for path in SOURCE.rglob("*.py") if path.name not in DOORS)


def words_of(tree: ast.AST) -> set[str]:
    """Return identifiers and string literals, docstrings left out."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    texts: set[str] = set()
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            texts.add(node.value)
        for name in ("id", "attr", "arg", "name"):
            if isinstance(value := getattr(node, name, None), str):
                texts.add(value)
    return {word.lower() for text in texts for word in re.findall(r"[A-Za-z0-9]+", text)}


def code_lines(text: str) -> int:
    """Count lines of code: no blanks, comments or docstrings."""
    docstrings = sum(
        (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
        and isinstance(node.body[0].value, ast.Constant)
    )
    lines = [line.strip() for line in text.splitlines()]
    return sum(bool(line) and not line.startswith("#") for line in lines) - docstrings


def own_lines(function: ast.FunctionDef) -> int:
    """Count the lines of a function without those of functions within it."""
    inner = [n for n in ast.walk(function) if isinstance(n, ast.FunctionDef) and n is not function]
    direct = [n for n in inner if not any(n is not o and n in ast.walk(o) for o in inner)]
    length = (function.end_lineno or 0) - function.lineno
    return length - sum((n.end_lineno or 0) - n.lineno for n in direct)


def test_the_surveys_are_found():
    """Otherwise the next test could not fail."""
    assert {"ztf", "lsst", "elasticc", "decat"} <= set(SURVEY_NAMES)


@pytest.mark.parametrize(
    "path",
    [path for path in python_files() if "surveys" not in path.relative_to(SOURCE).parts],
    ids=lambda path: str(path.relative_to(SOURCE)),
)
def test_no_survey_is_named_outside_surveys(path: Path):
    """A survey is data; code that names one belongs in its folder."""
    named = words_of(ast.parse(path.read_text())) & set(SURVEY_NAMES)

    assert named == set()


def test_files_and_functions_are_short():
    """The shape budgets."""
    too_long = []
    for path in python_files():
        text = path.read_text()
        if (lines := code_lines(text)) > MAX_FILE_LINES:
            too_long.append(f"{path.name}: {lines} lines")
        too_long += [
            f"{path.name}:{node.lineno} {node.name}"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef) and own_lines(node) > MAX_FUNCTION_LINES
        ]

    assert too_long == []


def test_import_broker_is_cheap():
    """No third-party module comes with it."""
    code = (
        "import sys; before = set(sys.modules); import broker;"
        "print(sorted({m.split('.')[0] for m in set(sys.modules) - before}"
        " - {'broker'} - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_nothing_below_apps_reads_the_environment():
    """Settings are passed down; only config.py reads them, when an app asks."""
    readers = [
        str(path.relative_to(SOURCE))
        for path in python_files()
        if path.relative_to(SOURCE).parts[0] not in ("apps", "config.py")
        and re.search(r"\bos\.environ|\bgetenv\b", path.read_text())
    ]

    assert readers == []
