"""Checks that folders are as they were written: a whole run, and its newest intact checkpoint.

These functions only read, so they can check a run that another process is writing. That process removes older
checkpoints and replaces folders, so a missing or incomplete folder is a fault only if nothing changed during the check.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

from acorn.config_files import load_run_config
from acorn.data import token_shards
from acorn.data.example_folder import kind_of_data, verify_examples
from acorn.data.made_from import shards_folder
from acorn.errors import AcornError, DamageError, UsageError
from acorn.files import is_sealed, permission_denied, read_errors, read_json, read_sealed_json, sha256_of
from acorn.folders import readable, verify_folder
from acorn.progress import QUIET, Progress
from acorn.run_folder import ADAPTER_CONFIG, CONFIG, MANIFEST, MODEL_CONFIG, STATE, TOKENIZER, RunFolder, step_of

CHECKPOINT_FILES = (CONFIG, TOKENIZER, "model*.safetensors", "optimizer*.safetensors", STATE, MANIFEST)
GENERATION_CONFIG = "generation_config.json"
MODEL_FILES = (
    MODEL_CONFIG,
    GENERATION_CONFIG,
    "model*.safetensors",
    TOKENIZER,
    "tokenizer_config.json",
    "README.md",
    MANIFEST,
)
GGUF_FILES = ("*.gguf", "parity.json", "README.md", MANIFEST)
WEIGHT_PATTERNS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin")
"""A folder with such a file is treated as a model, whether or not acorn can read it."""

MAX_ATTEMPTS = 50
"""Attempts to read what another process keeps replacing. A new attempt is made only after a change."""

Found = TypeVar("Found")


@dataclass(frozen=True)
class FolderCheck:
    """The result of checking one folder.

    Attributes:
        kind: "run" (files directly in the run folder), "checkpoint", "model", "gguf" (an export), "adapter" or "data".
        faults: one line per fault, with the file; empty: the folder is intact.
    """

    folder: Path
    kind: str
    faults: tuple[str, ...]

    @property
    def whole(self) -> bool:
        return not self.faults


@read_errors()
def verify_run(run: Path) -> list[FolderCheck]:
    """Checks a run folder: its own files, all checkpoints, the final model, the adapter, and the shards or examples.

    If `run` is a single checkpoint, model folder or export, it checks that.

    Raises:
        UsageError: `run` does not exist, or is nothing that can be checked.
        InputError: reading a file or folder of it is not permitted.
    """
    kind = kind_of(run)
    if kind == "checkpoint":
        return [FolderCheck(run, kind, tuple(checkpoint_faults(run)))]
    if kind in ("model", "gguf", "adapter"):
        if not (run / MANIFEST).exists():
            raise UsageError(
                f"{run} has no {MANIFEST}, so its files cannot be checked.",
                where=str(run.absolute()),
                fix="compare the files with their source; restore a folder that acorn wrote from a copy",
            )
        faults = model_faults(run) if kind == "model" else gguf_faults(run) if kind == "gguf" else verify_folder(run)
        return [FolderCheck(run, kind, tuple(faults))]
    folder = RunFolder(run)
    own = look_again(folder, lambda: _own_file_faults(folder))
    data = _shards_of(folder)
    faults = _data_faults(data) if data.is_dir() else [f"{data}: is missing"]
    checks = [FolderCheck(run, "run", tuple(own)), FolderCheck(data, "data", tuple(faults))]
    for step in started_checkpoints(folder):
        checks += _checked(folder.checkpoint(step), "checkpoint", checkpoint_faults)
    return [
        *checks,
        *_checked(folder.final, "model", model_faults),
        *_checked(folder.adapter, "adapter", verify_folder),
    ]


def _data_faults(data: Path) -> list[str]:
    """What is wrong with a run's data, of either kind."""
    return verify_examples(data) if kind_of_data(data) == "examples" else token_shards.verify(data)


def look_again(run: RunFolder, look: Callable[[], Found]) -> Found:
    """Calls `look` on a run that another process may be writing.

    If `look` fails and the run's checkpoints or final model changed meanwhile, it is called again.

    Raises:
        AcornError, OSError: raised by `look`.
    """
    for _ in range(MAX_ATTEMPTS - 1):
        before = _entries(run)
        try:
            return look()
        except (AcornError, OSError):
            if _entries(run) == before:
                raise
    return look()


def _checked(path: Path, kind: str, faults_of: Callable[[Path], list[str]]) -> list[FolderCheck]:
    """Checks the folder that is `path` now; empty if it does not exist or was removed meanwhile."""
    check: list[FolderCheck] = []
    for _ in range(MAX_ATTEMPTS):
        folder = readable(path)
        before = _identity(folder)
        if before is None:
            return []
        faults = faults_of(folder)
        check = [FolderCheck(folder, kind, tuple(faults))]
        if not faults or (readable(path) == folder and _identity(folder) == before):
            break
    return check


def _identity(path: Path) -> tuple[int, int] | None:
    """Distinguishes a file or folder from a later one with the same name; None: it does not exist."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, 0 if path.is_dir() else found.st_mtime_ns  # the time of a folder changes while files are added


def _entries(run: RunFolder) -> dict[str, tuple[int, int] | None]:
    """The run's checkpoints and final model by name, including incomplete ones."""
    paths: list[Path] = []
    with contextlib.suppress(OSError):
        entries = run.checkpoints.iterdir()
        paths += [path for path in entries if step_of(path.name, exact=False) is not None or path == run.best]
    paths += [run.final.with_name(run.final.name + ending) for ending in ("", ".new", ".old")]
    return {path.name: _identity(path) for path in paths}


def _own_file_faults(run: RunFolder) -> list[str]:
    """Faults of the files directly in the run folder that contain their own digest, and of its tokenizer."""
    faults = []
    try:
        load_run_config(run.config)
    except (DamageError, UsageError) as error:
        faults.append(f"{run.config}: {error.what}")
    for path in (run.best, run.evaluation, run.sources):
        try:
            if path.exists():
                read_sealed_json(path)
        except DamageError as error:
            faults.append(f"{path}: {error.what}")
    copies = [folder / TOKENIZER for folder in readable_checkpoints(run).values() if (folder / TOKENIZER).is_file()]
    if not run.tokenizer.is_file():
        faults.append(f"{run.tokenizer}: is missing")
    elif copies and run.tokenizer.read_bytes() not in [copy.read_bytes() for copy in copies]:
        faults.append(f"{run.tokenizer}: differs from the one in the run's checkpoints")
    return faults


def _shards_of(run: RunFolder) -> Path:
    """The token shards of the run: its own, or a prepared folder."""
    try:
        prepared = load_run_config(run.config).data.shards
    except (DamageError, UsageError):
        prepared = ""
    return shards_folder(run, prepared)


@read_errors()
def newest_whole_checkpoint(run: RunFolder, progress: Progress = QUIET) -> Path | None:
    """The newest intact checkpoint; newer damaged ones are reported to `progress`. None: there are no checkpoints.

    Raises:
        DamageError: there are checkpoints, but none is intact.
        InputError: reading one of them is not permitted.
    """
    for _ in range(MAX_ATTEMPTS):
        before = _entries(run)
        folders = readable_checkpoints(run)
        faults = {}
        for step in reversed(folders):
            faults[step] = checkpoint_faults(folders[step])
            if not faults[step]:
                break
        torn = [f"  - {fault}" for found in faults.values() for fault in found]
        if _entries(run) == before or (faults and not torn):
            break
    whole = next((step for step in faults if not faults[step]), None)
    if whole is None and torn:
        raise DamageError(
            "None of the run's checkpoints is intact:\n" + "\n".join(torn),
            where=str(run.checkpoints),
            fix="restore one of them from a copy, or start a new run in another folder",
        )
    if torn:
        progress.note(f"Using the checkpoint of step {whole}; newer ones are damaged:\n" + "\n".join(torn))
    return None if whole is None else folders[whole]


def checkpoint_faults(folder: Path) -> list[str]:
    """Faults of a checkpoint folder. If it contains a file that does not belong there, nothing is read.

    Raises:
        InputError: reading it is not permitted.
    """
    try:
        names = _names(folder)
    except PermissionError:
        raise permission_denied(folder) from None
    except OSError as error:
        return [f"{folder}: cannot be read ({error.strerror})"]
    foreign = [name for name in names if not any(fnmatch(name, pattern) for pattern in CHECKPOINT_FILES)]
    if foreign:
        return [f"{folder / name}: does not belong in a checkpoint; nothing was read" for name in foreign]
    return verify_folder(folder) or _missing(folder, names, CHECKPOINT_FILES) or _step_faults(folder)


def model_faults(folder: Path) -> list[str]:
    """Faults of a model folder that acorn wrote."""
    if faults := verify_folder(folder):
        return faults
    names = _names(folder)
    no_generation = MODEL_CONFIG in names and _gives_labels(folder / MODEL_CONFIG)
    needed = tuple(file for file in MODEL_FILES if not (no_generation and file == GENERATION_CONFIG))
    return _missing(folder, names, needed)


def _gives_labels(file: Path) -> bool:
    """Whether a config.json is of a model that gives labels or values, and so has no settings of generation."""
    config: object = None
    with contextlib.suppress(DamageError):
        config = read_json(file)
    classes = config.get("architectures") if isinstance(config, dict) else None
    return isinstance(classes, list) and any(str(name).endswith("Classification") for name in classes)


def gguf_faults(folder: Path) -> list[str]:
    """Faults of a GGUF export."""
    return verify_folder(folder) or _missing(folder, _names(folder), GGUF_FILES)


def check_read_files(folder: Path, names: list[str]) -> None:
    """Compares the files that will be read with the folder's manifest, if it has one.

    Other files are ignored: a model folder stays readable if its card is edited or the Hub adds a file to it.

    Raises:
        DamageError: a file is missing or differs from what was written.
    """
    if not (folder / MANIFEST).exists():
        return
    manifest = read_json(folder / MANIFEST)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    faults = [] if is_sealed(manifest) else [f"{folder / MANIFEST}: is not what was written (its own SHA-256 differs)"]
    for name in names:
        entry = files.get(name) if isinstance(files, dict) else None
        if not isinstance(entry, dict):
            faults.append(f"{folder / name}: is not in {MANIFEST}")
        elif not (folder / name).is_file():
            faults.append(f"{folder / name}: is missing")
        elif sha256_of(folder / name) != entry.get("sha256"):
            faults.append(f"{folder / name}: its content is not what {MANIFEST} lists (SHA-256 differs)")
    if faults:
        raise DamageError(
            "The model folder fails its check:\n" + "\n".join(f"  - {fault}" for fault in faults),
            where=str(folder),
            fix="restore it from a copy; in a run folder, --checkpoint last uses the newest intact checkpoint instead",
        )


def kind_of(path: Path) -> str:
    """The kind of a RUN: "checkpoint", "model" or "run", or "gguf" or "adapter", which can only be checked.

    Raises:
        UsageError: it does not exist, or is none of these.
    """
    if not os.path.isdir(path):  # returns False for invalid names, unlike Path.is_dir
        what = f"{path} is a file, not a run." if os.path.exists(path) else f"The run {path} does not exist."
        raise UsageError(what, where=str(path.absolute()), fix=_A_RUN)
    names = _names(path)
    if STATE in names or step_of(path.name, exact=False) is not None:
        return "checkpoint"
    if ADAPTER_CONFIG in names and MODEL_CONFIG not in names:
        return "adapter"
    if MODEL_CONFIG in names or any(fnmatch(name, pattern) for name in names for pattern in WEIGHT_PATTERNS):
        return "model"
    if any(fnmatch(name, "*.gguf") for name in names):
        return "gguf"
    run = RunFolder(path)
    if CONFIG in names or run.checkpoints.is_dir() or readable(run.final).is_dir():
        return "run"
    raise UsageError(
        f"{path} is not a run: it contains no {CONFIG}, checkpoints/ or final/, and no {STATE} or {MODEL_CONFIG}.",
        where=str(path.absolute()),
        fix=_A_RUN,
    )


_A_RUN = "name a run folder, a checkpoint folder inside one, or a Hugging Face model folder"


def started_checkpoints(run: RunFolder) -> list[int]:
    """Steps of all checkpoints, including incomplete ones; oldest first."""
    if not run.checkpoints.is_dir():
        return []
    names = (entry.name.removesuffix(".new").removesuffix(".old") for entry in run.checkpoints.iterdir())
    return sorted({step for step in map(step_of, names) if step is not None})


def readable_checkpoints(run: RunFolder) -> dict[int, Path]:
    """Step -> the folder to read, oldest first; includes interrupted replacements. Not verified."""
    folders = {step: readable(run.checkpoint(step)) for step in started_checkpoints(run)}
    return {step: folder for step, folder in folders.items() if folder.is_dir()}


def _step_faults(folder: Path) -> list[str]:
    """Faults of a checkpoint whose content belongs to another step than its folder's name."""
    named = step_of(folder.name, exact=False)
    try:
        step = read_json(folder / STATE)["counters"]["step"]
    except (DamageError, KeyError, TypeError):
        return [f"{folder / STATE}: is not the state of a checkpoint"]
    if named is not None and step != named:
        return [f"{folder / STATE}: belongs to step {step}, not to the step in the folder's name"]
    return []


def _names(folder: Path) -> list[str]:
    """Names in a folder, without names that begin with a dot, which desktops add."""
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted(entry.name for entry in entries if not entry.name.startswith("."))


def _missing(folder: Path, names: list[str], patterns: tuple[str, ...]) -> list[str]:
    """Faults for required files that neither the folder nor its manifest has."""
    wanted = (pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in names))
    return [f"{folder / pattern}: is missing" for pattern in wanted]
