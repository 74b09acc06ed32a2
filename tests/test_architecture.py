"""The shape of the package: imports run one way, files stay small, all that is public is explained."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import retroprop

ROOT = Path(retroprop.__file__).parent
FILES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
FILE_LINES, FUNCTION_LINES, FIX_LINES = 400, 60, 120

# Lowest first; a unit imports from its own row and from those above it in this table only.
ORDER = [
    {"errors", "randomness"},
    {"stacking", "optim", "losses", "augment", "sparse"},
    {"networks"},
    {"anatomy", "tracing"},
    {"surgery"},
    {"fix"},
    {"fixes"},
    {"fix_config"},
    {"testing"},
    {"data"},
    {"ensemble"},
    {"study"},
    {"analysis"},
    {"report"},
    {"explain"},
    {"lightning", "zoo"},
    {"cli"},
    {"__main__"},
]
RANK = {unit: rank for rank, units in enumerate(ORDER) for unit in units}

# Imports inside functions that may run upwards, and why.
UPWARDS = {
    ("testing", "data"): "the laws train a fix on the digits",
    ("testing", "ensemble"): "the law 'fused equals alone' needs the engine",
}

HEAVY = ("torch", "lightning", "timm", "scipy", "matplotlib", "sklearn")


@dataclass(frozen=True)
class Import:
    """One import of a module of ours."""

    importer: str
    imported: str
    line: int
    late: bool

    def __str__(self) -> str:
        how = "imports inside a function" if self.late else "imports"
        return f"{self.importer}:{self.line} {how} {self.imported}"


def unit(module: str) -> str:
    """The second part of a module's name; the package itself, which imports nothing, is ''."""
    return module.split(".")[1] if "." in module else ""


def names_of(node: ast.AST) -> list[str]:
    """Modules of ours that an import statement names."""
    if isinstance(node, ast.Import):
        given = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
        submodules = [f"{node.module}.{alias.name}" for alias in node.names]
        given = [name if name in FILES else node.module for name in submodules]
    else:
        return []
    return [name for name in given if name.split(".")[0] == "retroprop"]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports_in(module: str, node: ast.AST, late: bool = False) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            continue
        for name in names_of(child):
            yield Import(module, name, child.lineno, late)
        inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield from imports_in(module, child, late or inside)


def parsed(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def upward(one: Import) -> bool:
    importer, imported = unit(one.importer), unit(one.imported)
    if imported == "" or importer == "":
        return importer == "" and imported != "" and not one.late
    if one.late and (importer, imported) in UPWARDS:
        return False
    return RANK[imported] > RANK[importer]


def test_every_unit_has_a_place_in_the_order():
    units = {unit(module) for module in FILES} - {""}
    assert units <= set(RANK), f"not in ORDER: {sorted(units - set(RANK))}"


def test_imports_run_downwards():
    found = [one for module in FILES for one in imports_in(module, parsed(module)) if upward(one)]
    assert not found, "upward imports:\n" + "\n".join(map(str, found))


def test_units_do_not_import_each_other_in_a_circle():
    """Also inside one row of the order, and counting only what runs when a module is imported."""
    needs: dict[str, set[str]] = {}
    for module in FILES:
        for one in imports_in(module, parsed(module)):
            if not one.late and unit(one.imported) != unit(module):
                needs.setdefault(unit(module), set()).add(unit(one.imported))
    while needs:
        free = [name for name, wanted in needs.items() if not wanted & set(needs)]
        assert free, f"a circle among {sorted(needs)}"
        for name in free:
            del needs[name]


def test_exceptions_are_still_needed():
    used = {
        (unit(one.importer), unit(one.imported))
        for module in FILES
        for one in imports_in(module, parsed(module))
        if one.late
    }
    assert set(UPWARDS) <= used, f"no longer needed: {sorted(set(UPWARDS) - used)}"


def test_fixes_do_not_know_each_other():
    found = [
        one
        for module in FILES
        if module.startswith("retroprop.fixes.")
        for one in imports_in(module, parsed(module))
        if one.imported.startswith("retroprop.fixes.")
    ]
    assert not found, "\n".join(map(str, found))


def test_nothing_below_testing_names_a_fix():
    """The engine and all below it never name a fix."""
    found = [
        one
        for module in FILES
        if unit(module) not in ("", "testing", "explain", "zoo", "cli", "fixes")
        for one in imports_in(module, parsed(module))
        if one.imported.startswith("retroprop.fixes.")
    ]
    assert not found, "\n".join(map(str, found))


def test_files_are_short():
    long = {
        module: lines
        for module, path in FILES.items()
        if (lines := len(path.read_text(encoding="utf-8").splitlines()))
        > (FIX_LINES if module.startswith("retroprop.fixes.") else FILE_LINES)
    }
    assert not long, f"over {FILE_LINES} lines (a fix: {FIX_LINES}): {long}"


def definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Every function and class with its dotted name, those inside functions too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield f"{prefix}{child.name}", child
            yield from definitions(child, f"{prefix}{child.name}.")
        else:
            yield from definitions(child, prefix)


def test_functions_are_short():
    long = {
        f"{module}.{name}": lines
        for module in FILES
        for name, node in definitions(parsed(module))
        if not isinstance(node, ast.ClassDef)
        and (lines := node.end_lineno - node.lineno + 1) > FUNCTION_LINES
    }
    assert not long, f"over {FUNCTION_LINES} lines: {long}"


def public(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Public functions and classes of a module, and public methods of its public classes."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if child.name.startswith("_"):
                continue
            yield f"{prefix}{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{child.name}.")
        elif isinstance(child, (ast.If, ast.Try)):
            yield from public(child, prefix)


def test_modules_public_functions_and_classes_are_explained():
    """Methods may inherit their docstring, so of them only the linter asks one."""
    bare = [module for module in FILES if not ast.get_docstring(parsed(module))]
    bare += [
        f"{module}.{name}"
        for module in FILES
        for name, node in public(parsed(module))
        if "." not in name and not ast.get_docstring(node)
    ]
    assert not bare, f"without a docstring: {bare}"


def test_environment_is_read_in_data_only():
    found = [
        f"{module}:{node.lineno}"
        for module in FILES
        if unit(module) != "data"
        for node in ast.walk(parsed(module))
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"))
        or (isinstance(node, ast.alias) and node.name in ("environ", "getenv", "environb"))
    ]
    assert not found, f"reads the environment: {found}"


@pytest.mark.parametrize("module", ["retroprop", "retroprop.cli"])
def test_import_is_light(module: str):
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split()) & set(HEAVY)
    assert not loaded, f"`import {module}` imports {sorted(loaded)}"


def test_names_of_the_package_resolve():
    for name in retroprop.__all__:
        assert getattr(retroprop, name) is not None, name
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = retroprop.no_such_name
