"""One text for many runs: tokenizer and shards are made once, and each run gets its own links or copies.

A text is prepared by `run/text.py` in a folder that looks like a run that was stopped before its first step. Each run
starts with the same files. Its shards are hard links if the file system supports them, so that each run is complete by
itself and the text takes disk space only once.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from acorn.config import Config
from acorn.config_files import flatten, to_toml
from acorn.data.made_from import StartFolder, read_made_from, write_made_from
from acorn.data.token_shards import TokenShards, has_manifest
from acorn.errors import DamageError
from acorn.files import disk_errors, make_folders, write_file
from acorn.folder_lock import FolderLock
from acorn.folders import link_folder, remove_folder, settle
from acorn.progress import Progress
from acorn.run.initial_model import load_initial_model
from acorn.run.start import clear_leftovers
from acorn.run.start_folder import start_folders
from acorn.run.text import open_prepared, text_to_shards
from acorn.run.unchanged import compare_all
from acorn.run_folder import MANIFEST, RunFolder

KEYS_WITHOUT_EFFECT = frozenset({"data.shuffle_group"})
"""Keys of the text's sections that affect neither tokenizer nor shards."""


def text_key(config: Config) -> str:
    """A name for the text of `config`: equal for configs with the same tokenizer and shards."""
    values = {
        key: value
        for key, value in flatten(config).items()
        if key.startswith(("data.", "tokenizer.", "train.init_from")) and key not in KEYS_WITHOUT_EFFECT
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def prepare_text(config: Config, folder: Path, progress: Progress) -> TokenShards:
    """Tokenizer and shards of `config`: those that `data.shards` names, else those in `folder`, made if needed.

    Raises:
        AcornError: what a run of `config` would raise while it reads its text.
    """
    run, initial = RunFolder(folder), None
    if config.train.init_from:
        config, initial = load_initial_model(config, progress)
    if config.data.shards:
        return open_prepared(config, run, initial.tokenizer if initial else None, check=False, progress=progress)[1]
    with FolderLock(run.lock):
        clear_leftovers(run)
        return text_to_shards(config, run, None, progress, initial)[1]


def restore_text(config: Config, folder: Path, begun: RunFolder) -> None:
    """Restores the text of `config` in `folder` from the started run `begun`, if it is missing or different there.

    Nothing is done if that run has no shards: they are then made from the text again.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    text = RunFolder(folder)
    if has_shards_of(begun, folder) or not (has_manifest(begun.data) and begun.sources.exists()):
        return
    make_folders(folder)
    with FolderLock(text.lock), disk_errors(folder):
        clear_leftovers(text)
        remove_folder(text.data)  # first: other shards must never be beside these records
        _copy_made_from(begun, text)
        write_file(text.config, to_toml(config))
        link_folder(begun.data, text.data)


def changes_of_text(config: Config, folder: Path) -> tuple[str, ...]:
    """The files from which the text in `folder` was made and that have changed since, one line each. Only reads.

    Missing files count as unchanged: the shards that were made from them are used.
    """
    run = RunFolder(folder)
    if config.data.shards or not has_manifest(run.data):
        return ()
    try:
        known = read_made_from(run)
    except DamageError:  # the text is then prepared again, and its shards are compared
        return ()
    if known is None:
        return ()
    found = compare_all(replace(known, model=[]), run, config, start_folders(run, known, named_now=True))
    return found.changed + found.gone


def begin_run(config: Config, run: RunFolder, text: Path) -> None:
    """Makes the folder of a run of `config` with the text in `text`, in the state before the first step.

    It can be interrupted at any moment and repeated: the config is written last.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    with disk_errors(run.root):
        make_folders(run.root)
    if not config.data.shards:
        settle(run.data)
        if not has_shards_of(run, text):
            link_folder(RunFolder(text).data, run.data)
        _copy_made_from(RunFolder(text), run)
    write_file(run.config, to_toml(config))


def _copy_made_from(source: RunFolder, target: RunFolder) -> None:
    """Copies sources.json of the run `source` to `target`, with the start folder relative to `target`."""
    known = read_made_from(source)
    if known is not None:
        start = StartFolder.of(Path(known.start.folder), target) if known.start else None
        write_made_from(target, replace(known, start=start))


def has_shards_of(run: RunFolder, text: Path) -> bool:
    """Whether the run's shards are those of the text in `text`: their manifests are equal."""
    ours, theirs = run.data / MANIFEST, RunFolder(text).data / MANIFEST
    both = has_manifest(ours.parent) and has_manifest(theirs.parent)
    return both and ours.read_bytes() == theirs.read_bytes()
