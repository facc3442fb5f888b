"""A release: the contents of wheel and source archive, and training with only the wheel in a new environment."""

from __future__ import annotations

import email
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.utils import canonicalize_name
from project_metadata import PROJECT, ROOT, applicable, import_name, requirements, tracked_files

import acorn
from acorn.kernels.build import find_compiler

SOURCE = ROOT / "src" / "acorn"
NAME = f"acorn_lm-{acorn.__version__}"
STEPS_WITHOUT_C = "no C compiler was found"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive, as `make dist` builds them."""
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder)
    assert {path.name for path in folder.iterdir()} == {f"{NAME}-py3-none-any.whl", f"{NAME}.tar.gz"}
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return built / f"{NAME}-py3-none-any.whl"


@pytest.fixture(scope="module")
def unpacked(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the source archive unpacks to."""
    folder = tmp_path_factory.mktemp("source")
    with tarfile.open(built / f"{NAME}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    [inner] = folder.iterdir()
    assert inner.name == NAME
    return inner


@dataclass(frozen=True)
class Fresh:
    """An environment in which the wheel and its core dependencies are installed, and nothing else."""

    bin: Path
    home: Path

    def run(self, *command: str | Path, path: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Runs a program of the environment with only `path` on PATH."""
        kept = {name: os.environ[name] for name in ("HF_HOME", "MPLCONFIGDIR") if name in os.environ}
        variables = {"PATH": path, "HOME": str(self.home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | kept
        program, *arguments = map(str, command)
        return subprocess.run(
            [str(self.bin / program), *arguments], cwd=cwd, env=variables, capture_output=True, text=True
        )


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """pip installs the wheel without an index, which works only if every dependency is already there."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True)
    [site_packages] = (folder / "env").glob("lib/python*/site-packages")
    for place in core_dependencies():
        (site_packages / place.name).symlink_to(place)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "env/bin/python")]
    subprocess.run([*pip, "install", "--quiet", "--no-index", str(wheel)], check=True, env=without_pip_settings())
    (folder / "home").mkdir()
    return Fresh(folder / "env/bin", folder / "home")


@dataclass(frozen=True)
class Demo:
    folder: Path
    messages: str
    compiled: list[str]


@pytest.fixture(scope="module")
def demo(fresh: Fresh, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """`acorn demo` where there is a C compiler and nothing was compiled before."""
    folder = tmp_path_factory.mktemp("elsewhere")
    done = fresh.run("acorn", "demo", "--minutes", "0.05", path=os.environ["PATH"], cwd=folder)
    assert done.returncode == 0, done.stderr
    compiled = sorted(path.name.partition("-")[0] for path in fresh.home.rglob("*.so"))
    return Demo(folder, done.stdout + done.stderr, compiled)


def test_the_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {name for name in names if name.startswith("acorn/")}
    assert package == {path.relative_to(SOURCE.parent).as_posix() for path in source_files()}
    assert {"acorn/py.typed", "acorn/presets/demo.toml", "acorn/kernels/csrc/decode.c"} <= package
    assert {f"acorn/text/wikitext2/{split}.txt.xz" for split in ("train", "valid", "test")} <= package
    assert f"{NAME}.dist-info/licenses/LICENSE" in names


def test_the_source_archive_has_exactly_the_tracked_files(unpacked: Path) -> None:
    """Other files in a maintainer's folder are not published."""
    tracked = tracked_files()
    if not tracked:
        pytest.skip("not a git checkout")
    found = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert found == tracked | {"PKG-INFO"}


def test_a_wheel_built_from_the_source_archive_is_the_same(wheel: Path, unpacked: Path, tmp_path: Path) -> None:
    build(unpacked, tmp_path, "-t", "wheel")
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


def test_the_metadata_is_valid_for_a_package_index(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"{NAME}.dist-info/METADATA")
    parsed = Metadata.from_email(metadata, validate=True)
    assert parsed.name == "acorn-lm"
    assert parsed.license_expression == "Apache-2.0 AND CC-BY-SA-3.0"
    assert set(parsed.project_urls or {}) >= {"Homepage", "Documentation", "Changelog", "Issues", "Source"}
    assert email.message_from_bytes(metadata)["Description-Content-Type"] == "text/markdown"


def test_the_fresh_environment_has_acorn_and_no_package_of_an_extra(fresh: Fresh, tmp_path: Path) -> None:
    others = {import_name(r) for extra in PROJECT["optional-dependencies"] for r in requirements(extra)}
    others -= {import_name(requirement) for requirement in requirements("")}
    others.discard("h11")  # of the extra `serve`; the Hugging Face libraries bring it, too
    code = "import acorn, importlib.util as u, sys; print(acorn.__file__, *filter(u.find_spec, sys.argv[1:]))"
    done = fresh.run("python", "-c", code, *sorted(others), path=os.environ["PATH"], cwd=tmp_path)
    file, *found = done.stdout.split()
    assert Path(file).is_relative_to(fresh.bin.parent)
    assert {"transformers", "gguf", "pytest", "tensorboard"} <= others
    assert not found
    assert fresh.run("acorn", "--version", path="", cwd=tmp_path).stdout.split() == ["acorn", acorn.__version__]


def test_the_demo_runs_with_only_the_wheel(demo: Demo) -> None:
    run = demo.folder / "runs/demo"
    assert {path.name for path in demo.folder.iterdir()} == {"runs"}
    assert {"report.html", "loss.png", "metrics.jsonl", "final"} <= {path.name for path in run.iterdir()}
    assert "> The history of" in demo.messages
    assert "bits per byte" in demo.messages


@pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler")
def test_the_demo_compiles_the_c_code_in_the_wheel(demo: Demo) -> None:
    assert {"decode", "training"} <= set(demo.compiled)
    assert STEPS_WITHOUT_C not in demo.messages


def test_the_demo_runs_without_a_c_compiler(fresh: Fresh, demo: Demo, tmp_path: Path) -> None:
    """It starts from the text that the other run prepared, because the tokenizer uses no C code."""
    run = tmp_path / "runs/demo"
    run.mkdir(parents=True)
    for name in ("config.toml", "tokenizer.json", "sources.json", "data"):
        place = demo.folder / "runs/demo" / name
        (shutil.copytree if place.is_dir() else shutil.copy)(place, run / name)
    assert not [name for name in ("cc", "gcc", "clang") if shutil.which(name, path=str(fresh.bin))]
    done = fresh.run("acorn", "demo", "--minutes", "0.05", path=str(fresh.bin), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "learning the vocabulary" not in done.stderr
    assert STEPS_WITHOUT_C in done.stderr
    assert "bits per byte" in done.stdout
    assert (run / "final/model.safetensors").exists()


def build(project: Path, folder: Path, *options: str) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), *options]
    subprocess.run(command, cwd=project, check=True, capture_output=True)


def source_files() -> Iterator[Path]:
    return (path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def core_dependencies() -> set[Path]:
    """The entries in site-packages of acorn's core dependencies and of all their dependencies."""
    waiting = requirements("")
    seen: set[tuple[str, frozenset[str]]] = set()
    places: set[Path] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        distribution = importlib.metadata.distribution(name)
        files = [file for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")]
        places |= {Path(str(distribution.locate_file(file.parts[0]))).resolve() for file in files}
        waiting += applicable(distribution.requires, *requirement.extras)
    return places


def without_pip_settings() -> dict[str, str]:
    """This environment, with settings that stop pip from searching for packages."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PIP_")} | {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
