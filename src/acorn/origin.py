"""Where text and weights come from, by names that may be published: never by a path of this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

HUB_PREFIX = "hf:"
BUNDLED_PREFIX = "bundled:"
STARTS_FROM = "starts_from"
"""Key of environment.json, and of a checkpoint's `resolved`, for the models that a run started from."""


def is_repository(name: str) -> bool:
    """Whether `name` has the form OWNER/NAME, of a dataset or a model of the Hub."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def hub_repository(source: str) -> str:
    """`OWNER/NAME` of `hf:OWNER/NAME[:CONFIG]`; empty for anything else, a local `hf:FOLDER` included."""
    if not source.startswith(HUB_PREFIX):
        return ""
    name = source.removeprefix(HUB_PREFIX)
    repository = name.partition(":")[0]
    is_local = os.path.isdir(name) or os.path.isdir(repository) or repository.startswith(".")
    return repository if is_repository(repository) and not is_local else ""


def public_name(source: str) -> str:
    """A text source as a published page may name it.

    Names of the Hub, bundled text and paths below the current folder stay as they are. Of any other path the last part
    is left, since the folders above it tell of the user and the machine.
    """
    if source.startswith(BUNDLED_PREFIX) or hub_repository(source):
        return source
    path = source.removeprefix(HUB_PREFIX)
    parts = [part for part in re.split(r"[/\\]", path) if part not in ("", ".")]
    leads_out = path.startswith(("/", "\\", "~")) or ".." in parts or re.match(r"[A-Za-z]:[/\\]", path)
    return (parts[-1] if parts and parts[-1] != ".." else "a folder") if leads_out else path


@dataclass(frozen=True)
class Base:
    """A model that another one started from.

    Attributes:
        name: `OWNER/NAME` on the Hub; else the name of the run or model folder, without the folders above it.
        version: revision on the Hub, or `step N` of a run; empty: not known.
        license: of the model, as its own card states it; empty: not known.
        text: what it was trained on, with the license of that text; empty: not known.
    """

    name: str
    kind: Literal["hub", "run", "folder"]
    version: str = ""
    license: str = ""
    text: str = ""

    @property
    def told(self) -> str:
        """The model within a sentence: `the run mine (step 20)`."""
        version = f" ({self.version})" if self.version else ""
        return {"hub": "", "run": "the run ", "folder": "the model folder "}[self.kind] + self.name + version


def descent(bases: Sequence[Base]) -> str:
    """`bases`, nearest first, within a sentence: `the run b (step 5), which started from the run a (step 20)`."""
    return ", which started from ".join(base.told for base in bases)


def to_stored(bases: Sequence[Base]) -> dict[str, Any]:
    """`bases` as environment.json and checkpoints keep them; nothing for a model trained from scratch."""
    return {STARTS_FROM: [asdict(base) for base in bases]} if bases else {}


def stored_bases(stored: Mapping[str, Any], init_from: str) -> tuple[Base, ...]:
    """The models that a run started from, nearest first; none for one trained from scratch.

    Args:
        stored: environment.json, or a checkpoint's `resolved`. Entries of another form are passed over.
        init_from: the run's `train.init_from`, which is all that is known where `stored` does not tell.
    """
    listed = stored.get(STARTS_FROM)
    bases = tuple(_base(entry) for entry in listed if _is_base(entry)) if isinstance(listed, list) else ()
    if bases or not init_from:
        return bases
    if repository := hub_repository(init_from):
        return (Base(repository, "hub"),)
    return (Base(os.path.basename(os.path.abspath(init_from.removeprefix(HUB_PREFIX))), "folder"),)


def _is_base(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and set(entry) == set(Base.__dataclass_fields__)
        and all(isinstance(value, str) for value in entry.values())
        and entry["kind"] in ("hub", "run", "folder")
    )


def _base(entry: Any) -> Base:
    return Base(**entry)
