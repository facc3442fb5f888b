"""Names of text and weights that may be published: they never contain a path of this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

HUB_PREFIX = "hf:"
BUNDLED_PREFIX = "bundled:"
STARTS_FROM = "starts_from"
"""Key in environment.json, in a checkpoint's `resolved` and in a card's metadata: the models that a model was trained
from."""


def is_repository(name: str) -> bool:
    """Whether `name` has the form OWNER/NAME of a dataset or model on the Hub."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def hub_repository(source: str) -> str:
    """`OWNER/NAME` of `hf:OWNER/NAME[:CONFIG]`; empty for anything else, including a local `hf:FOLDER`."""
    if not source.startswith(HUB_PREFIX):
        return ""
    name = source.removeprefix(HUB_PREFIX)
    repository = name.partition(":")[0]
    is_local = os.path.isdir(name) or os.path.isdir(repository) or repository.startswith(".")
    return repository if is_repository(repository) and not is_local else ""


def public_name(source: str) -> str:
    """The name of a text source for published pages.

    Names on the Hub, bundled text and paths below the current folder stay unchanged. Of other paths only the last part
    is used, since the folders above it reveal something about the user and the machine.
    """
    if source.startswith(BUNDLED_PREFIX) or hub_repository(source):
        return source
    path = source.removeprefix(HUB_PREFIX)
    parts = [part for part in re.split(r"[/\\]", path) if part not in ("", ".")]
    leads_out = path.startswith(("/", "\\", "~")) or ".." in parts or re.match(r"[A-Za-z]:[/\\]", path)
    return (parts[-1] if parts and parts[-1] != ".." else "a folder") if leads_out else path


@dataclass(frozen=True)
class Base:
    """A model that another one was trained from.

    Attributes:
        name: `OWNER/NAME` on the Hub, or the name of the run or model folder without the folders above it.
        version: revision on the Hub, or `step N` of a run; empty: unknown.
        license: license of the model according to its card; empty: unknown.
        text: its training text, with the license of that; empty: unknown.
    """

    name: str
    kind: Literal["hub", "run", "folder"]
    version: str = ""
    license: str = ""
    text: str = ""

    @property
    def told(self) -> str:
        """The model as part of a sentence: `the run mine (step 20)`."""
        version = f" ({self.version})" if self.version else ""
        return {"hub": "", "run": "the run ", "folder": "the model folder "}[self.kind] + self.name + version


def descent(bases: Sequence[Base]) -> str:
    """`bases`, nearest first, as part of a sentence: `the run b (step 5), which started from the run a (step 20)`."""
    return ", which started from ".join(base.told for base in bases)


def to_stored(bases: Sequence[Base]) -> dict[str, Any]:
    """`bases` in the form of environment.json and checkpoints; empty for a model from scratch."""
    return {STARTS_FROM: [asdict(base) for base in bases]} if bases else {}


def stored_bases(stored: Mapping[str, Any], init_from: str) -> tuple[Base, ...]:
    """The models that a run was trained from, nearest first; empty for a run from scratch.

    Args:
        stored: environment.json, a checkpoint's `resolved`, or metadata of a card. Invalid entries are ignored.
        init_from: the run's `train.init_from`, used if `stored` has no bases.
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
