"""The text of a run as it trains on it: its tokenizer and token shards, made once and then found in its folder."""

from __future__ import annotations

from pathlib import Path

from acorn.checkpoint.training_state import Checkpoint
from acorn.config import Config
from acorn.config_files import differences, load_run_config, to_toml
from acorn.data.prepare import prepare
from acorn.data.token_shards import TokenShards
from acorn.errors import DamageError, InputError
from acorn.files import disk_errors, sha256_of, sync_folder, write_file
from acorn.folders import remove_folder, settle
from acorn.progress import Progress
from acorn.run_folder import MANIFEST, TOKENIZER, RunFolder
from acorn.text.splits import TextSplits
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train as train_tokenizer


def text_to_shards(
    config: Config, run: RunFolder, checkpoint: Checkpoint | None, progress: Progress, given: Tokenizer | None = None
) -> tuple[Tokenizer, TokenShards]:
    """The run's tokenizer and shards: those in its folder if they are whole and its own, else made now.

    Args:
        given: the tokenizer of the model that a new run starts from.
    """
    if config.data.shards:
        shards = TokenShards.open(Path(config.data.shards), check=True, progress=progress)
        if missing := {"train", "valid"} - set(shards.splits):
            raise InputError(
                f"The token shards have no split {' and no split '.join(sorted(missing))}.",
                where=str(shards.folder / MANIFEST),
                mend="make them with `acorn data prepare`, which always writes both",
            )
        tokenizer = shards.tokenizer()
        if given and not given.reads_like(tokenizer):
            raise InputError(
                f"The token shards were made with another tokenizer than that of the model {config.train.init_from}.",
                where=str(shards.folder / TOKENIZER),
                mend="make them with `acorn data prepare --tokenizer` and the model's tokenizer.json",
            )
        if checkpoint is None:
            write_file(run.tokenizer, tokenizer.to_json())
    elif checkpoint is not None:
        where = str(checkpoint.path / TOKENIZER)
        tokenizer = Tokenizer.from_json(checkpoint.tokenizer_json, where=where, as_it_is=True)
        settle(run.data)
        if not run.data.exists():
            progress.note(f"{run.data.name}/ is gone: the token shards are made again from the text.")
            texts = TextSplits.open(config.data, progress, run.root)
            prepare(texts, tokenizer, run.data, shard_tokens=config.data.shard_tokens, progress=progress)
        elif not (run.data / MANIFEST).exists():
            raise DamageError(
                f"{MANIFEST} of the token shards is missing.",
                where=str(run.data / MANIFEST),
                mend=f"put it back from a copy, or remove the folder {run.data}: it is made again from the text",
            )
        shards = TokenShards.open(run.data, tokenizer.fingerprint, check=True, progress=progress)
    elif _has_own_shards(config, run):
        shards = TokenShards.open(run.data, given.fingerprint if given else None, check=True, progress=progress)
        tokenizer = shards.tokenizer()
        write_file(run.tokenizer, tokenizer.to_json())
    else:
        tokenizer, shards = _make_shards(config, run, progress, given)
    if checkpoint is None:
        return tokenizer, shards
    _check_own_tokenizer(run, checkpoint)
    if fingerprint_of(shards) != checkpoint.resolved.get("data"):
        raise DamageError(
            "The token shards are not those that the run was started with.",
            where=str(shards.folder / MANIFEST),
            mend="put the original shards back, or start another run with --out",
        )
    return tokenizer, shards


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
            mend="remove it; the run then writes it again from its checkpoint",
        )


def _has_own_shards(config: Config, run: RunFolder) -> bool:
    """Whether an earlier start of this very run got as far as its shards. A damaged config is no help to tell."""
    settle(run.data)
    if not (run.data / MANIFEST).exists():
        return False
    try:
        changed = differences(load_run_config(run.config), config)
    except DamageError:
        return False
    return not any(key.startswith(("data.", "tokenizer.", "train.init_from")) for key in changed)


def _make_shards(
    config: Config, run: RunFolder, progress: Progress, given: Tokenizer | None
) -> tuple[Tokenizer, TokenShards]:
    texts = TextSplits.open(config.data, progress, run.root)
    if given:
        tokenizer = given
    elif config.tokenizer.path:
        tokenizer = Tokenizer.from_file(Path(config.tokenizer.path))
    else:
        tokenizer = train_tokenizer(
            lambda: (document.text for document in texts.documents("train")),
            config.tokenizer.kind,
            config.tokenizer.vocab_size,
            entries=texts.entries(config.tokenizer.kind),
            progress=progress,
        )
    with disk_errors(run.root):
        remove_folder(run.data)  # first: shards of other text must never stand beside this config
        sync_folder(run.root)
    write_file(run.config, to_toml(config))
    write_file(run.tokenizer, tokenizer.to_json())
    shards = prepare(texts, tokenizer, run.data, shard_tokens=config.data.shard_tokens, progress=progress)
    return tokenizer, shards


def fingerprint_of(shards: TokenShards) -> str:
    """One value for all token shards: their manifest names the content of every file."""
    return sha256_of(shards.folder / MANIFEST)
