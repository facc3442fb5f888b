"""The project itself: import directions, dependencies, package contents, and what the command line loads."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import socket
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports
from packaging.utils import canonicalize_name
from packaging.version import Version
from project_metadata import PROJECT, ROOT, applicable, extras, import_name, requirements, tracked_files

import acorn

SOURCE = ROOT / "src" / "acorn"
MODULES = sorted(SOURCE.rglob("*.py"))
STANDARD_LIBRARY = {*sys.stdlib_module_names, "__future__"}

# Imported by acorn, and always installed because a core dependency requires it by name.
COMES_WITH = {"huggingface_hub": "datasets", "pyarrow": "datasets"}

# Files with a subclass of a class from an extra, which must be imported when they load.
LOADED_LATE = {"acorn.evaluate.harness_model": "lm_eval"}

SERVER = "acorn.serve."
"""The files of this folder need the extra `serve`, and are imported inside functions by all others."""


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """All imports of acorn, also inside functions. Other packages count as one module each."""
    return grimp.build_graph("acorn", include_external_packages=True, cache_dir=None)


def test_import_contracts_hold(capsys: pytest.CaptureFixture[str]) -> None:
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_import_contracts_see_every_file(graph: grimp.ImportGraph) -> None:
    """A folder without `__init__.py` would be in no contract."""
    assert {module_name(path) for path in MODULES} == {name for name in graph.modules if root_of(name) == "acorn"}


def test_the_guide_lists_the_floor_of_every_file_and_folder() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rows = re.findall(r"^\| \d \| (.*) \|$", page, re.M)
    named = [name for row in rows for name in re.findall(r"`(\w+(?:/|\.py))`", row)]
    packages = {f"{path.parent.name}/" for path in SOURCE.glob("*/__init__.py")}
    files = {path.name for path in SOURCE.glob("*.py")} - {"__init__.py"}
    assert sorted(named) == sorted(packages | files)


def test_the_model_imports_only_torch_and_its_config(graph: grimp.ImportGraph) -> None:
    own = {"acorn.model", *graph.find_descendants("acorn.model")}
    imported = set().union(*(graph.find_modules_directly_imported_by(module) for module in own)) - own
    assert {name for name in imported if root_of(name) not in STANDARD_LIBRARY} == {"acorn.config", "torch"}


DEVICES_OF_TENSORS = {
    "gpt.py: self.token_embedding.weight.device",  # GPT.device, for callers that have to place their inputs
    "label_head.py: x.device",  # torch.autocast(enabled=False) is asked for by device; it is the same on each
}


def test_the_model_does_not_check_devices_or_autocast() -> None:
    """Whoever builds the model chooses its operations and types."""
    asked = {"device", "is_cpu", "is_cuda", "is_mps", "get_autocast_dtype", "is_autocast_enabled"}
    for path in (SOURCE / "model").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Attribute) and node.attr in asked:
                place = f"{path.name}: {ast.unparse(node)}"
                assert place.endswith(": torch.device") or place in DEVICES_OF_TENSORS, f"line {node.lineno} of {place}"


def test_text_tokenizer_and_config_do_not_load_torch() -> None:
    """Contracts check acorn's own imports; this checks what its dependencies load in turn."""
    files = [path for path in MODULES if path.parent == SOURCE and path.stem not in ("__main__", "api")]
    files += [path for path in MODULES if path.parent.name in ("text", "tokenizer")]
    imports = "\n".join(f"import {module_name(path)}" for path in files)
    assert "torch" not in loaded_by("-c", imports)


def test_help_loads_no_large_packages() -> None:
    heavy = {"datasets", "matplotlib", "numpy", "pandas", "pyarrow", "tokenizers", "torch", "transformers"}
    assert not heavy & loaded_by("-m", "acorn", "--help")


def test_imports_at_module_level_are_of_core_dependencies() -> None:
    """An extra is imported inside the function that needs it, so only that function fails without it."""
    core = {import_name(requirement) for requirement in requirements("")} | set(COMES_WITH)
    found = {(module_name(path), name) for path in MODULES for name in imported_when_loaded(path)}
    strange = {(module, name) for module, name in found if name not in core | STANDARD_LIBRARY | {"acorn"}}
    of_server = {(module, name) for module, name in strange if module.startswith(SERVER)}
    assert {name for _, name in of_server} == {import_name(requirement) for requirement in requirements("serve")}
    assert strange - of_server == set(LOADED_LATE.items())


def test_files_that_need_the_server_are_only_imported_inside_functions() -> None:
    modules = [module_name(path) for path in MODULES if path.stem != "__main__"]
    others = "\n".join(f"import {name}" for name in modules if not name.startswith(SERVER) and name not in LOADED_LATE)
    assert not {"starlette", "uvicorn"} & loaded_by("-c", others)


@pytest.mark.parametrize(("module", "extra"), LOADED_LATE.items())
def test_files_that_need_an_extra_are_only_imported_inside_functions(module: str, extra: str) -> None:
    others = "\n".join(f"import {module_name(path)}" for path in MODULES if path.stem != "__main__")
    others = others.replace(f"import {module}\n", "")
    assert extra not in loaded_by("-c", others)


def test_every_import_is_declared(graph: grimp.ImportGraph) -> None:
    declared = {import_name(requirement) for extra in ("", *extras()) for requirement in requirements(extra)}
    external = {root_of(name) for name in graph.modules} - STANDARD_LIBRARY - {"acorn"}
    assert external <= declared | set(COMES_WITH)


@pytest.mark.parametrize(("name", "bringer"), COMES_WITH.items())
def test_undeclared_imports_come_with_a_core_dependency(name: str, bringer: str) -> None:
    assert bringer in {requirement.name for requirement in requirements("")}
    brought = {import_name(requirement) for requirement in applicable(importlib.metadata.requires(bringer))}
    assert name in brought


@pytest.mark.parametrize("extra", ["", *PROJECT["optional-dependencies"]])
def test_constraints_pin_every_requirement_of_the_project(extra: str) -> None:
    pins = constraints()
    wanted = requirements(extra)
    assert wanted
    for requirement in wanted:
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_constraints_pin_every_installed_dependency() -> None:
    """Including indirect dependencies, except those of torch, which pins what it needs on a GPU."""
    pins = constraints()
    waiting = [*requirements(""), *requirements("dev")]
    seen: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in seen:
            continue
        seen.add(name)
        assert name in pins, f"{name} is not in constraints.txt; run: make lock"
        if name != "torch":
            waiting += applicable(importlib.metadata.requires(name), *requirement.extras)
    assert len(seen) > len(requirements("")) + len(requirements("dev"))


def test_constraints_pin_torch_for_every_kind_of_machine() -> None:
    """A local version label such as +cpu would prevent installation on GPU machines."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", constraints()["torch"])


def test_no_file_names_the_host_of_a_package_registry() -> None:
    """Which index pip and others ask is the user's choice; publishing finds its own through trusted publishing."""
    hosts = [("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("debian", "org"), ("download.pytorch", "org")]
    names = [".".join(parts) for parts in (*hosts, ("anaconda", "com"), ("anaconda", "org"), ("crates", "io"))]
    for file in tracked_files():
        text = (ROOT / file).read_bytes()
        assert not [name for name in names if name.encode() in text], file


def test_no_file_allows_models_with_their_own_code() -> None:
    """SECURITY.md promises this. For code in pickles, see tests/test_no_pickle.py."""
    assert not [path for path in MODULES if b"trust_remote_code" in path.read_bytes()]


def test_network_access_is_refused(network_attempts: list[str]) -> None:
    """192.0.2.0/24 is reserved for documentation: no machine has such an address."""
    with pytest.raises(RuntimeError, match=r"192\.0\.2\.1"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    assert network_attempts
    network_attempts.clear()


def test_the_installed_command_is_that_of_this_checkout() -> None:
    [script] = importlib.metadata.entry_points(group="console_scripts", name="acorn")
    assert script.value == PROJECT["scripts"]["acorn"]
    assert Path(acorn.__file__).parent == SOURCE


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def root_of(name: str) -> str:
    return name.partition(".")[0]


def loaded_by(*arguments: str) -> set[str]:
    """Packages that a Python process with these arguments loads."""
    command = [sys.executable, "-X", "importtime", *arguments]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    return {root_of(line.rpartition("|")[2].strip()) for line in lines if line.startswith("import time:")}


def imported_when_loaded(path: Path) -> set[str]:
    """Packages that a file imports when it is imported itself: outside functions and `if TYPE_CHECKING:`."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_bytes())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names |= {root_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(root_of(node.module or "acorn"))
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += ast.iter_child_nodes(node)
    return names


def constraints() -> dict[str, str]:
    """Normalised name -> version."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert all(Version(version) for version in pins.values())
    return pins
