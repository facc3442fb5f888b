"""The models that a model goes back to: the run or folder that it is, what that started from, and so on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acorn.checkpoint.hub import repository_of
from acorn.checkpoint.load import LoadedModel
from acorn.checkpoint.model_card import PROVENANCE, TRAINED_ON, told_text
from acorn.checkpoint.model_folder import CARD
from acorn.config_files import load_run_config
from acorn.errors import DamageError
from acorn.files import read_json, read_sealed_json
from acorn.origin import Base, is_repository, stored_bases
from acorn.run_folder import CONFIG, STATE, RunFolder, run_of

LONGEST_LICENSE, LONGEST_TOLD, MOST_BASES = 100, 500, 50
"""Characters of a license's name and of any other string, and models, that a foreign card may bring into ours."""


def bases_of(loaded: LoadedModel) -> tuple[Base, ...]:
    """The model that was loaded as another one's base, then what it started from, nearest first."""
    if run := run_of(loaded.folder):
        step = _step_in(run) if loaded.step is None else loaded.step
        version = "" if step is None else f"step {step:,}"
        return (Base(_name_of(run.root), "run", version, text=_text_of(run.config)), *bases_of_run(run))
    if loaded.step is not None:
        return _bases_of_checkpoint(loaded.folder, loaded.step)
    repository, revision = repository_of(loaded.folder)
    card = _metadata(loaded.folder / CARD)
    provenance = card.get(PROVENANCE)
    provenance = provenance if isinstance(provenance, Mapping) else {}
    own = Base(
        name=repository or _name_of(loaded.folder),
        kind="hub" if repository else "folder",
        version=f"revision {revision[:12]}" if revision else "",
        license=_license(card),
        text=_told(provenance.get(TRAINED_ON)),
    )
    earlier = tuple(_cleaned(base) for base in stored_bases(provenance, "")[:MOST_BASES])
    return (own, *(earlier or _named_base(card)))


def _bases_of_checkpoint(folder: Path, step: int) -> tuple[Base, ...]:
    """Those of a checkpoint folder that is no longer inside its run."""
    stored: Any = {}
    init_from = ""
    with contextlib.suppress(DamageError):
        stored = read_json(folder / STATE).get("resolved")
        init_from = load_run_config(folder / CONFIG).train.init_from
    own = Base(_name_of(folder), "folder", f"step {step:,}", text=_text_of(folder / CONFIG))
    return (own, *stored_bases(stored if isinstance(stored, Mapping) else {}, init_from))


def _named_base(card: Mapping[str, Any]) -> tuple[Base, ...]:
    """The model of the Hub that another program's card names as its base."""
    named = card.get("base_model")
    if isinstance(named, list) and len(named) == 1:  # several are those of a merge, which no chain can tell
        [named] = named
    # Some programs write a path there, which says nothing elsewhere.
    return (Base(named, "hub"),) if isinstance(named, str) and is_repository(named) else ()


def bases_of_run(run: RunFolder) -> tuple[Base, ...]:
    """What a run started from, nearest first; none for a run from scratch."""
    stored: Any = {}
    with contextlib.suppress(DamageError):
        stored = read_json(run.environment) if run.environment.is_file() else {}
    init_from = ""
    with contextlib.suppress(DamageError):
        init_from = load_run_config(run.config).train.init_from
    return stored_bases(stored if isinstance(stored, Mapping) else {}, init_from)


def _name_of(folder: Path) -> str:
    """A folder's own name, on one line and as Unicode."""
    return _one_line(folder.resolve().name)


def _one_line(text: str) -> str:
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())


def _told(value: object) -> str:
    """A string of a card's metadata, which anyone may have written; empty for anything else."""
    return _one_line(value)[:LONGEST_TOLD] if isinstance(value, str) else ""


def _cleaned(base: Base) -> Base:
    """A base as a card tells it. What has no name of the Hub's form is not taken for a model there."""
    name = _told(base.name)
    kind = "folder" if base.kind == "hub" and not is_repository(name) else base.kind
    return Base(name, kind, _told(base.version), _told(base.license), _told(base.text))


def _step_in(run: RunFolder) -> int | None:
    """The step whose weights `final/` holds."""
    with contextlib.suppress(DamageError):
        step = read_sealed_json(run.evaluation).get("weights_of_step")
        return step if type(step) is int else None
    return None


def _text_of(config: Path) -> str:
    """What a run or checkpoint was trained on, by its config.toml."""
    with contextlib.suppress(DamageError):
        return told_text(load_run_config(config).data.source)
    return ""


def _metadata(card: Path) -> Mapping[str, Any]:
    """The metadata at the top of a model card; empty where there is none that can be read."""
    if not os.path.isfile(card):
        return {}
    import huggingface_hub

    try:
        metadata = huggingface_hub.metadata_load(card)
    except Exception:  # another program's YAML, in any state
        return {}
    return metadata if isinstance(metadata, Mapping) else {}


def _license(card: Mapping[str, Any]) -> str:
    """What a card calls its license: `apache-2.0`, or the name of one that the Hub has no word for."""
    license = card.get("license")
    if license == "other":
        license = card.get("license_name") or license
    license = ", ".join(map(str, license)) if isinstance(license, list) else license
    return _told(license)[:LONGEST_LICENSE]
