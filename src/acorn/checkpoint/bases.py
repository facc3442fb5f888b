"""The chain of models that a model was trained from: its run or folder, the base of that, and so on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acorn.checkpoint.card_parts import PROVENANCE, TRAINED_ON, text_description
from acorn.checkpoint.hub import repository_of
from acorn.checkpoint.load import LoadedModel
from acorn.checkpoint.model_folder import CARD
from acorn.config_files import load_run_config
from acorn.errors import DamageError
from acorn.files import read_json, read_sealed_json
from acorn.origin import Base, is_repository, stored_bases
from acorn.run_folder import CONFIG, STATE, RunFolder, run_of

LONGEST_LICENSE, LONGEST_TOLD, MOST_BASES = 100, 500, 50
"""Limits for what is copied from a foreign model card: characters of a license's name, characters of any other string,
and number of models."""


def bases_of(loaded: LoadedModel) -> tuple[Base, ...]:
    """The loaded model itself, then the models that it was trained from, nearest first."""
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
        text=_clean_string(provenance.get(TRAINED_ON)),
    )
    earlier = tuple(_clean_base(base) for base in stored_bases(provenance, "")[:MOST_BASES])
    return (own, *(earlier or _named_base(card)))


def _bases_of_checkpoint(folder: Path, step: int) -> tuple[Base, ...]:
    """The bases of a checkpoint folder that was copied out of its run."""
    stored: Any = {}
    init_from = ""
    with contextlib.suppress(DamageError):
        stored = read_json(folder / STATE).get("resolved")
        init_from = load_run_config(folder / CONFIG).train.init_from
    own = Base(_name_of(folder), "folder", f"step {step:,}", text=_text_of(folder / CONFIG))
    return (own, *stored_bases(stored if isinstance(stored, Mapping) else {}, init_from))


def _named_base(card: Mapping[str, Any]) -> tuple[Base, ...]:
    """The base model on the Hub that a foreign card names."""
    named = card.get("base_model")
    if isinstance(named, list) and len(named) == 1:  # several models were merged, which is not a chain
        [named] = named
    # Some programs write a local path there, which means nothing on another machine.
    return (Base(named, "hub"),) if isinstance(named, str) and is_repository(named) else ()


def bases_of_run(run: RunFolder) -> tuple[Base, ...]:
    """The models that a run was trained from, nearest first; empty for a run from scratch."""
    stored: Any = {}
    with contextlib.suppress(DamageError):
        stored = read_json(run.environment) if run.environment.is_file() else {}
    init_from = ""
    with contextlib.suppress(DamageError):
        init_from = load_run_config(run.config).train.init_from
    return stored_bases(stored if isinstance(stored, Mapping) else {}, init_from)


def _name_of(folder: Path) -> str:
    """The name of a folder, on one line and as valid Unicode."""
    return _one_line(folder.resolve().name)


def _one_line(text: str) -> str:
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())


def _clean_string(value: object) -> str:
    """A string from a card's metadata, cleaned, because anyone may have written it; empty for other types."""
    return _one_line(value)[:LONGEST_TOLD] if isinstance(value, str) else ""


def _clean_base(base: Base) -> Base:
    """A base from a card's metadata, cleaned. Without a valid repository name it is not called a model on the Hub."""
    name = _clean_string(base.name)
    kind = "folder" if base.kind == "hub" and not is_repository(name) else base.kind
    return Base(name, kind, _clean_string(base.version), _clean_string(base.license), _clean_string(base.text))


def _step_in(run: RunFolder) -> int | None:
    """The step whose weights are in `final/`."""
    with contextlib.suppress(DamageError):
        step = read_sealed_json(run.evaluation).get("weights_of_step")
        return step if type(step) is int else None
    return None


def _text_of(config: Path) -> str:
    """The training text of a run or checkpoint, from its config.toml."""
    with contextlib.suppress(DamageError):
        return text_description(load_run_config(config).data.source)
    return ""


def _metadata(card: Path) -> Mapping[str, Any]:
    """The metadata at the top of a model card; empty if there is none or it cannot be read."""
    if not os.path.isfile(card):
        return {}
    import huggingface_hub

    try:
        metadata = huggingface_hub.metadata_load(card)
    except Exception:  # YAML of another program, possibly invalid
        return {}
    return metadata if isinstance(metadata, Mapping) else {}


def _license(card: Mapping[str, Any]) -> str:
    """The license in a card: an identifier such as `apache-2.0`, or the name of a license without one."""
    license = card.get("license")
    if license == "other":
        license = card.get("license_name") or license
    license = ", ".join(map(str, license)) if isinstance(license, list) else license
    return _clean_string(license)[:LONGEST_LICENSE]
