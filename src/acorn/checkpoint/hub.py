"""Models of the Hugging Face Hub: `hf:OWNER/NAME`, fetched into the Hub's own cache on this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path

from acorn.errors import InputError, UsageError
from acorn.files import path_named
from acorn.hub_errors import one_line, why_not_reached
from acorn.origin import HUB_PREFIX, is_repository
from acorn.progress import QUIET, Progress

FETCHED = (
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
)
"""Files of a repository that acorn reads. Pickles and code are never fetched."""

_SNAPSHOT = re.compile(r"models--(?P<owner>[\w.-]+?)--(?P<name>[\w.-]+)")
"""A model's folder in the Hub's cache. Each of its snapshots is named by a revision."""


def local_folder(run: Path | str, progress: Progress = QUIET) -> Path:
    """The folder that `run` stands for: `hf:OWNER/NAME` is fetched, `hf:FOLDER` and any other path is itself.

    Raises:
        UsageError: what follows `hf:` is neither, or `run` is not a path at all.
        InputError: the Hub cannot be reached and this machine has no copy, or there is no such model.
    """
    path_named(run, "RUN")
    name = str(run).removeprefix(HUB_PREFIX)
    if name == str(run) or os.path.isdir(name):
        return Path(name)
    if not is_repository(name):
        raise UsageError(
            f"{run} is neither a model of the Hub nor a folder that is there.",
            where=str(Path(name).absolute()),
            fix="write hf:OWNER/NAME",
        )
    import huggingface_hub
    from huggingface_hub import errors

    progress.note(f"{name} is taken from the Hub, or from this machine's copy of it.")
    try:
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=list(FETCHED)))
    except (errors.RepositoryNotFoundError, errors.GatedRepoError) as error:
        raise InputError(
            f"The Hub does not give this model: {one_line(error)}",
            where=str(run),
            fix="check its name; `hf auth login` for a private or gated one",
        ) from None
    except Exception as error:  # the library and what it stands on raise errors of many families
        cause, fix = why_not_reached(error)
        raise InputError(
            f"The Hub cannot be reached: {cause}.",
            where=str(run),
            fix=f"{fix}; or, on a connected machine, run `hf download OWNER/NAME --local-dir FOLDER`, copy "
            "FOLDER here, and name it",
        ) from None
    if not any(folder.glob("*.safetensors")):
        raise InputError(
            "The model has no weights as safetensors; others were not fetched.",
            where=str(run),
            fix="where you trust its source, convert it in Python: transformers.AutoModelForCausalLM"
            f'.from_pretrained("{name}").save_pretrained("FOLDER"), and its AutoTokenizer likewise; then name FOLDER',
        )
    return folder


def repository_of(folder: Path) -> tuple[str, str]:
    """`OWNER/NAME` and revision of a model folder in the Hub's cache; two empty strings for any other folder."""
    place = folder.absolute()
    found = _SNAPSHOT.fullmatch(place.parent.parent.name) if place.parent.name == "snapshots" else None
    return (f"{found['owner']}/{found['name']}", place.name) if found else ("", "")
