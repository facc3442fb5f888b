"""The tokenizer and token shards of a run: made once, then read from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from acorn.checkpoint.load import LoadedModel
from acorn.checkpoint.training_state import Checkpoint
from acorn.config import Config
from acorn.config_files import differences, load_run_config, to_toml
from acorn.data.example_folder import ENDING as EXAMPLES_ENDING
from acorn.data.example_folder import kind_of_data
from acorn.data.made_from import (
    MadeFrom,
    StartFolder,
    prepared_shards,
    read_made_from,
    shards_folder,
    write_made_from,
)
from acorn.data.prepare import prepare
from acorn.data.token_shards import TokenShards, has_manifest
from acorn.errors import AcornError, DamageError, InputError, UsageError
from acorn.files import disk_errors, sha256_of, sync_folder, write_file
from acorn.folders import remove_folder, settle
from acorn.progress import QUIET, Progress
from acorn.run.start_folder import config_from, open_text, path_from
from acorn.run.unchanged import compare_all, model_records, text_records
from acorn.run_folder import MANIFEST, TOKENIZER, RunFolder
from acorn.text.file_records import FileRecord
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import Texts
from acorn.tokenizer.training import train as train_tokenizer


def text_to_shards(
    config: Config,
    run: RunFolder,
    checkpoint: Checkpoint | None,
    progress: Progress,
    initial: LoadedModel | None = None,
    folders: Sequence[Path] = (),
) -> tuple[Tokenizer, TokenShards]:
    """The run's tokenizer and shards: those in its folder if they are complete and its own, else made now.

    Args:
        initial: the model that a new run starts from.
        folders: where relative paths of `config` are looked up; by default the current folder.
    """
    folders = folders or [Path.cwd()]
    if config.data.shards:
        tokenizer, shards = _given_shards(config, run, checkpoint, progress, initial, folders)
    elif checkpoint is not None:
        tokenizer, shards = _shards_of_checkpoint(config, run, checkpoint, progress, folders)
    elif _has_own_shards(config, run, initial, progress, folders):
        tokenizer, shards = _shards_of_earlier_start(run, progress)
    else:
        tokenizer, shards = _new_shards(config, run, progress, initial, folders)
    if checkpoint is not None:
        check_own_tokenizer(run, checkpoint)
        _check_same_shards(shards, checkpoint)
    return tokenizer, shards


def _given_shards(
    config: Config,
    run: RunFolder,
    checkpoint: Checkpoint | None,
    progress: Progress,
    initial: LoadedModel | None,
    folders: Sequence[Path],
) -> tuple[Tokenizer, TokenShards]:
    """The shards that `data.shards` names. A new run records them and copies their tokenizer."""
    given = initial.tokenizer if initial else None
    tokenizer, shards = open_prepared(config, run, given, check=True, progress=progress)
    if checkpoint is None:
        write_file(run.config, to_toml(config))  # first: it marks the folder as a run's
        write_file(run.tokenizer, tokenizer.to_json())
        base = model_records(initial) if initial else []
        start = StartFolder.of(folders[0], run)
        write_made_from(run, MadeFrom(model=base, shards=prepared_shards(run, shards.folder), start=start))
    return tokenizer, shards


def _shards_of_checkpoint(
    config: Config, run: RunFolder, checkpoint: Checkpoint, progress: Progress, folders: Sequence[Path]
) -> tuple[Tokenizer, TokenShards]:
    """The checkpoint's tokenizer and the run's own shards, which are made again if their folder is missing.

    Raises:
        DamageError: only their manifest is missing, or a shard is not what was written.
    """
    where = str(checkpoint.path / TOKENIZER)
    tokenizer = Tokenizer.from_json(checkpoint.tokenizer_json, where=where, as_it_is=True)
    settle(run.data)
    if not run.data.exists():
        progress.note(f"{run.data.name}/ is missing: making the token shards from the text again.")
        texts, _ = open_text(config, run, folders, progress)
        prepare(texts, tokenizer, run.data, shard_tokens=config.data.shard_tokens, progress=progress)
    elif not has_manifest(run.data):
        raise DamageError(
            f"{MANIFEST} of the token shards is missing.",
            where=str(run.data / MANIFEST),
            fix=f"restore it from a copy, or remove the folder {run.data}, which is then made from the text again",
        )
    return tokenizer, TokenShards.open(run.data, tokenizer.fingerprint, check=True, progress=progress)


def _shards_of_earlier_start(run: RunFolder, progress: Progress) -> tuple[Tokenizer, TokenShards]:
    """The shards of an earlier start of this run that ended before its first checkpoint."""
    shards = TokenShards.open(run.data, check=True, progress=progress)
    tokenizer = shards.tokenizer()
    write_file(run.tokenizer, tokenizer.to_json())
    return tokenizer, shards


def check_own_data(run: RunFolder) -> None:
    """Refuses to replace a folder `data` that holds other files than those of a run: it is the user's own.

    Raises:
        UsageError: it does; one of these files is named.
    """
    if not run.data.is_dir():
        return
    ours = (MANIFEST, TOKENIZER)
    ending = EXAMPLES_ENDING if kind_of_data(run.data) == "examples" else ".bin"
    foreign = sorted(path for path in run.data.iterdir() if path.name not in ours and path.suffix != ending)
    if foreign:
        raise UsageError(
            f"The run would write its data to {run.data}, but that folder holds other files, such as "
            f"{foreign[0].name}.",
            where="--out",
            fix="choose another folder with --out; nothing was removed",
        )


def _new_shards(
    config: Config, run: RunFolder, progress: Progress, initial: LoadedModel | None, folders: Sequence[Path]
) -> tuple[Tokenizer, TokenShards]:
    """Shards of the current text. What an earlier start with other text left is removed first."""
    texts, folder = open_text(config, run, folders, progress)
    made_from = MadeFrom(text_records(texts, progress), start=StartFolder.of(folder, run))
    if initial:
        made_from = replace(made_from, model=model_records(initial))
    elif config.tokenizer.path:
        made_from = replace(made_from, tokenizer=[FileRecord.of(path_from(folder, config.tokenizer.path))])
    tokenizer = choose_tokenizer(
        config_from(config, folder),
        initial.tokenizer if initial else None,
        lambda: texts.documents("train"),
        texts.entries(config.tokenizer.kind),
        progress,
    )
    check_own_data(run)
    with disk_errors(run.root):
        remove_folder(run.data)  # first: shards of other text must never be beside this config
        sync_folder(run.root)
    write_file(run.config, to_toml(config))
    write_file(run.tokenizer, tokenizer.to_json())
    write_made_from(run, made_from)
    shards = prepare(texts, tokenizer, run.data, shard_tokens=config.data.shard_tokens, progress=progress)
    return tokenizer, shards


def open_prepared(
    config: Config, run: RunFolder, given: Tokenizer | None, *, check: bool, progress: Progress
) -> tuple[Tokenizer, TokenShards]:
    """Tokenizer and shards of the folder that `data.shards` names.

    Args:
        run: the run that will use them; it need not exist.
        given: the tokenizer of the model that a new run starts from.
        check: compare every file with its checksum, not just names and sizes.

    Raises:
        InputError: the folder has no token shards of training and validation text, or `given` is another tokenizer.
        DamageError: a shard is missing, or is not what was written.
    """
    shards = TokenShards.open(shards_folder(run, config.data.shards), check=check, progress=progress)
    if missing := {"train", "valid"} - set(shards.splits):
        raise InputError(
            f"The token shards have no {' and no '.join(sorted(missing))} split.",
            where=str(shards.folder / MANIFEST),
            fix="make them with `acorn data prepare`, which always writes both",
        )
    tokenizer = shards.tokenizer()
    if given and not given.reads_like(tokenizer):
        raise InputError(
            f"The token shards were made with a different tokenizer than that of the model {config.train.init_from}.",
            where=str(shards.folder / TOKENIZER),
            fix="make them with `acorn data prepare --tokenizer` and the model's tokenizer.json",
        )
    return tokenizer, shards


def choose_tokenizer(
    config: Config, given: Tokenizer | None, texts: Texts, entries: Sequence[str], progress: Progress
) -> Tokenizer:
    """The tokenizer of a new run: that of its initial model, the one at `tokenizer.path`, or one that is trained now.

    Args:
        given: the tokenizer of the model that the run starts from.
        texts: returns the training documents, from the first one, each time it is called.
        entries: strings of the text that become one vocabulary entry each.

    Raises:
        UsageError, InputError: the vocabulary is too small, there is no text, or the file is not a tokenizer.
    """
    if given:
        return given
    if config.tokenizer.path:
        return Tokenizer.from_file(Path(config.tokenizer.path))
    kind, vocab_size = config.tokenizer.kind, config.tokenizer.vocab_size
    return train_tokenizer(texts, kind, vocab_size, entries=entries, progress=progress)


def check_own_tokenizer(run: RunFolder, checkpoint: Checkpoint) -> None:
    """Checks that tokenizer.json in the run folder is the one in its checkpoints. A missing one is written again.

    Raises:
        DamageError: it is not.
    """
    if not run.tokenizer.exists():
        write_file(run.tokenizer, checkpoint.tokenizer_json)
    elif run.tokenizer.read_bytes() != checkpoint.tokenizer_json.encode("utf-8"):
        raise DamageError(
            f"{run.tokenizer.name} is not the tokenizer that the run was trained with.",
            where=str(run.tokenizer),
            fix="remove it; resuming then restores it from the checkpoint",
        )


def _check_same_shards(shards: TokenShards, checkpoint: Checkpoint) -> None:
    """Checks that the shards are those that the run was started with.

    Raises:
        DamageError: they are not.
    """
    before, now = checkpoint.resolved.get("data"), fingerprint_of(shards)
    if now != before:
        raise DamageError(
            f"The token shards are not those that the run was started with: the SHA-256 of their {MANIFEST} was "
            f"{before} then and is {now} now.",
            where=str(shards.folder / MANIFEST),
            fix="restore the original shards, or start a new run with --out",
        )


def _has_own_shards(
    config: Config, run: RunFolder, initial: LoadedModel | None, progress: Progress, folders: Sequence[Path]
) -> bool:
    """Whether an earlier start of the same run, with the same text, has already written its shards.

    False if the record of the config or of the text is damaged.
    """
    settle(run.data)
    if not has_manifest(run.data):
        return False
    try:
        changed = differences(load_run_config(run.config), config)
        known = read_made_from(run)
    except DamageError:
        return False
    if any(key.startswith(("data.", "tokenizer.", "train.init_from")) for key in changed):
        return False
    if initial and TokenShards.open(run.data).manifest["tokenizer"]["fingerprint"] != initial.tokenizer.fingerprint:
        progress.note(
            "The model that the run starts from now has a different tokenizer: making the token shards again."
        )
        return False
    if known is None:
        return not _can_be_read(config, run, progress, folders)
    found = compare_all(replace(known, model=[]), run, config, folders)
    for line in (*found.changed, *found.gone):
        progress.note(f"Changed since the token shards were made: {line}")
    if found.changed or found.gone:
        progress.note("Making tokenizer and token shards again.")
        return False
    for sentence in found.absent:
        progress.note(f"{sentence}; using the token shards made from it.")
    write_made_from(run, replace(found.made_from, model=model_records(initial) if initial else []))
    return True


def _can_be_read(config: Config, run: RunFolder, progress: Progress, folders: Sequence[Path]) -> bool:
    """Whether there is text to make shards from, for a run without a record of its sources. Notes the result."""
    unknown = f"There is no {run.sources.name}, so acorn cannot check whether the text has changed"
    try:
        open_text(config, run, folders, QUIET)
    except AcornError as error:
        progress.note(f"{unknown}: {error.what} ({error.where}) Using the run's own token shards.")
        return False
    progress.note(f"{unknown}. Making tokenizer and token shards again.")
    return True


def fingerprint_of(shards: TokenShards) -> str:
    """One fingerprint of all token shards: that of their manifest, which has the checksum of every file."""
    return sha256_of(shards.folder / MANIFEST)
