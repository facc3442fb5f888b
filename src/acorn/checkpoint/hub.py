"""Models on the Hugging Face Hub (`hf:OWNER/NAME`), downloaded into the cache of huggingface_hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from acorn.errors import InputError, UsageError
from acorn.files import path_named
from acorn.hub_errors import one_line, why_not_reached
from acorn.origin import HUB_PREFIX, is_repository
from acorn.progress import QUIET, Progress

DOWNLOADED_FILES = (
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
"""Files of a repository that acorn reads. Pickles and code are never downloaded."""

_SNAPSHOT = re.compile(r"models--(?P<owner>[\w.-]+?)--(?P<name>[\w.-]+)")
"""The name of a model's folder in the cache of huggingface_hub; snapshots inside it are named by revision."""


def local_folder(run: Path | str, progress: Progress = QUIET) -> Path:
    """The local folder of `run`: `hf:OWNER/NAME` is downloaded; `hf:FOLDER` and other paths are used as they are.

    Raises:
        UsageError: what follows `hf:` is neither a repository nor a folder, or `run` is not a path.
        InputError: there is no such model, or the Hub cannot be reached and this machine has no copy.
    """
    path_named(run, "RUN")
    name = str(run).removeprefix(HUB_PREFIX)
    if name == str(run) or os.path.isdir(name):
        return Path(name)
    if not is_repository(name):
        raise UsageError(
            f"{run} is neither a model on the Hub nor an existing folder.",
            where=str(Path(name).absolute()),
            fix="write hf:OWNER/NAME, such as hf:HuggingFaceTB/SmolLM2-135M",
        )
    import huggingface_hub
    from huggingface_hub import errors

    progress.note(f"Loading {name} from the Hub, or from the copy on this machine.")
    try:
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=list(DOWNLOADED_FILES)))
    except (errors.RepositoryNotFoundError, errors.GatedRepoError) as error:
        raise InputError(
            f"The Hub does not provide this model: {one_line(error)}",
            where=str(run),
            fix="check its name; run `hf auth login` for a private or gated model",
        ) from None
    except Exception as error:  # the library and its dependencies raise many kinds of errors
        cause, fix = why_not_reached(error)
        local = name.rpartition("/")[2]
        raise InputError(
            f"The Hub cannot be reached: {cause}.",
            where=str(run),
            fix=f"{fix}; or run `hf download {name} --local-dir {local}` on a connected machine, "
            f"copy the folder {local} to this machine, and name it",
        ) from None
    if not any(folder.glob("*.safetensors")):
        raise InputError(
            "The model has no safetensors weights; other formats were not downloaded.",
            where=str(run),
            fix="if you trust its source, convert it in Python: transformers.AutoModelForCausalLM"
            f'.from_pretrained("{name}").save_pretrained("converted"), and its AutoTokenizer likewise; '
            "then name the folder converted",
        )
    return folder


def repository_of(folder: Path) -> tuple[str, str]:
    """`OWNER/NAME` and revision of a model folder in huggingface_hub's cache; two empty strings for other folders."""
    place = folder.absolute()
    found = _SNAPSHOT.fullmatch(place.parent.parent.name) if place.parent.name == "snapshots" else None
    return (f"{found['owner']}/{found['name']}", place.name) if found else ("", "")
