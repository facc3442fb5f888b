"""The text of a run as it trains on it: its tokenizer and token shards, made once and then found in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from acorn.checkpoint.load import LoadedModel
from acorn.checkpoint.training_state import Checkpoint
from acorn.config import Config
from acorn.config_files import differences, load_run_config, to_toml
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
    """The run's tokenizer and shards: those in its folder if they are whole and its own, else made now.

    Args:
        initial: the model that a new run starts from.
        folders: where relative paths of `config` are looked for; by default in the current folder.
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
        _check_own_tokenizer(run, checkpoint)
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
    """Those that `data.shards` names. A new run records them, and takes their tokenizer as its own."""
    given = initial.tokenizer if initial else None
    tokenizer, shards = open_prepared(config, run, given, check=True, progress=progress)
    if checkpoint is None:
        write_file(run.config, to_toml(config))  # first: by it the folder is known as a run's
        write_file(run.tokenizer, tokenizer.to_json())
        base = model_records(initial) if initial else []
        start = StartFolder.of(folders[0], run)
        write_made_from(run, MadeFrom(model=base, shards=prepared_shards(run, shards.folder), start=start))
    return tokenizer, shards


def _shards_of_checkpoint(
    config: Config, run: RunFolder, checkpoint: Checkpoint, progress: Progress, folders: Sequence[Path]
) -> tuple[Tokenizer, TokenShards]:
    """The checkpoint's tokenizer and the run's own shards, which are made again if their folder is gone.

    Raises:
        DamageError: their manifest alone is missing, or a shard is not what was written.
    """
    where = str(checkpoint.path / TOKENIZER)
    tokenizer = Tokenizer.from_json(checkpoint.tokenizer_json, where=where, as_it_is=True)
    settle(run.data)
    if not run.data.exists():
        progress.note(f"{run.data.name}/ is gone: the token shards are made again from the text.")
        texts, _ = open_text(config, run, folders, progress)
        prepare(texts, tokenizer, run.data, shard_tokens=config.data.shard_tokens, progress=progress)
    elif not has_manifest(run.data):
        raise DamageError(
            f"{MANIFEST} of the token shards is missing.",
            where=str(run.data / MANIFEST),
            fix=f"put it back from a copy, or remove the folder {run.data}: it is made again from the text",
        )
    return tokenizer, TokenShards.open(run.data, tokenizer.fingerprint, check=True, progress=progress)


def _shards_of_earlier_start(run: RunFolder, progress: Progress) -> tuple[Tokenizer, TokenShards]:
    """Those that a start of this run made which ended before its first checkpoint."""
    shards = TokenShards.open(run.data, check=True, progress=progress)
    tokenizer = shards.tokenizer()
    write_file(run.tokenizer, tokenizer.to_json())
    return tokenizer, shards


def _check_own_data(run: RunFolder) -> None:
    """Refuses to replace a folder `data` that holds what no token shards do: it is the user's own.

    Raises:
        UsageError: it does; one of these files is named.
    """
    if not run.data.is_dir():
        return
    ours = (MANIFEST, TOKENIZER)
    foreign = sorted(path for path in run.data.iterdir() if path.name not in ours and path.suffix != ".bin")
    if foreign:
        raise UsageError(
            f"The folder {run.data} is not one of token shards, which the run would put there: it holds "
            f"{foreign[0].name}.",
            where="--out",
            fix="name another folder with --out; nothing was removed",
        )


def _new_shards(
    config: Config, run: RunFolder, progress: Progress, initial: LoadedModel | None, folders: Sequence[Path]
) -> tuple[Tokenizer, TokenShards]:
    """Those of the text as it is now; what a start over other text left is removed first."""
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
    _check_own_data(run)
    with disk_errors(run.root):
        remove_folder(run.data)  # first: shards of other text must never stand beside this config
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
        run: the run that is to use them, whether it is there or not.
        given: the tokenizer of the model that a new run starts from.
        check: compare every file with its checksum, instead of only names and sizes.

    Raises:
        InputError: they are no token shards of training and validation text, or `given` reads text otherwise.
        DamageError: a shard is missing, or is not what was written.
    """
    shards = TokenShards.open(shards_folder(run, config.data.shards), check=check, progress=progress)
    if missing := {"train", "valid"} - set(shards.splits):
        raise InputError(
            f"The token shards have no split {' and no split '.join(sorted(missing))}.",
            where=str(shards.folder / MANIFEST),
            fix="make them with `acorn data prepare`, which always writes both",
        )
    tokenizer = shards.tokenizer()
    if given and not given.reads_like(tokenizer):
        raise InputError(
            f"The token shards were made with another tokenizer than that of the model {config.train.init_from}.",
            where=str(shards.folder / TOKENIZER),
            fix="make them with `acorn data prepare --tokenizer` and the model's tokenizer.json",
        )
    return tokenizer, shards


def choose_tokenizer(
    config: Config, given: Tokenizer | None, texts: Texts, entries: Sequence[str], progress: Progress
) -> Tokenizer:
    """The tokenizer of a new run: that of the model it starts from, that of `tokenizer.path`, or one trained now.

    Args:
        given: the tokenizer of the model that the run starts from.
        texts: gives the training documents, from the first on, each time it is called.
        entries: strings of the text that become one vocabulary entry each.

    Raises:
        UsageError, InputError: the vocabulary is too small, there is no text, or the file is no tokenizer.
    """
    if given:
        return given
    if config.tokenizer.path:
        return Tokenizer.from_file(Path(config.tokenizer.path))
    kind, vocab_size = config.tokenizer.kind, config.tokenizer.vocab_size
    return train_tokenizer(texts, kind, vocab_size, entries=entries, progress=progress)


def _check_own_tokenizer(run: RunFolder, checkpoint: Checkpoint) -> None:
    """The tokenizer.json beside the checkpoints is the one in them; a missing one is written again.

    Raises:
        DamageError: it is another one.
    """
    if not run.tokenizer.exists():
        write_file(run.tokenizer, checkpoint.tokenizer_json)
    elif run.tokenizer.read_bytes() != checkpoint.tokenizer_json.encode("utf-8"):
        raise DamageError(
            f"{run.tokenizer.name} is not the one that the run was trained with.",
            where=str(run.tokenizer),
            fix="remove it; the run then writes it again from its checkpoint",
        )


def _check_same_shards(shards: TokenShards, checkpoint: Checkpoint) -> None:
    """The shards are those that the run was started with.

    Raises:
        DamageError: they are others.
    """
    before, now = checkpoint.resolved.get("data"), fingerprint_of(shards)
    if now != before:
        raise DamageError(
            f"The token shards are not those that the run was started with: the SHA-256 of their {MANIFEST} was "
            f"{before}, and is {now} now.",
            where=str(shards.folder / MANIFEST),
            fix="put the original shards back, or start another run with --out",
        )


def _has_own_shards(
    config: Config, run: RunFolder, initial: LoadedModel | None, progress: Progress, folders: Sequence[Path]
) -> bool:
    """Whether an earlier start of this very run, over this very text, got as far as its shards.

    A damaged record of the config or of the text is no help to tell.
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
        progress.note("The model that the run starts from has another tokenizer now: the token shards are made again.")
        return False
    if known is None:
        return not _can_be_read(config, run, progress, folders)
    found = compare_all(replace(known, model=[]), run, config, folders)
    for line in (*found.changed, *found.gone):
        progress.note(f"changed since the token shards were made: {line}")
    if found.changed or found.gone:
        progress.note("Tokenizer and token shards are made again.")
        return False
    for sentence in found.absent:
        progress.note(f"{sentence}; the token shards made from it are used.")
    write_made_from(run, replace(found.made_from, model=model_records(initial) if initial else []))
    return True


def _can_be_read(config: Config, run: RunFolder, progress: Progress, folders: Sequence[Path]) -> bool:
    """Whether there is text to make shards of, in a run that does not tell what its own were made from. Says so."""
    unknown = f"There is no {run.sources.name}, so whether the text has changed cannot be checked"
    try:
        open_text(config, run, folders, QUIET)
    except AcornError as error:
        progress.note(f"{unknown}: {error.what} ({error.where}); the run's own token shards are used.")
        return False
    progress.note(f"{unknown}: tokenizer and token shards are made again.")
    return True


def fingerprint_of(shards: TokenShards) -> str:
    """One value for all token shards: their manifest names the content of every file."""
    return sha256_of(shards.folder / MANIFEST)
