"""Names of base models, and the chain of models that they were trained from."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_models import model_for

from acorn.checkpoint.bases import bases_of
from acorn.checkpoint.card_parts import with_provenance
from acorn.checkpoint.load import LoadedModel
from acorn.checkpoint.model_folder import CARD
from acorn.config_files import load_config, to_toml
from acorn.files import write_json, write_sealed_json
from acorn.origin import Base, to_stored
from acorn.run_folder import CONFIG, STATE, RunFolder
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(lambda: iter(["a text of some words"]), "bpe", 300)


@pytest.fixture
def loaded(tokenizer: Tokenizer):
    """A model as if it had been loaded from `folder`, which is created."""

    def build(folder: Path, card: str = "", step: int | None = None) -> LoadedModel:
        folder.mkdir(parents=True, exist_ok=True)
        if card:
            (folder / CARD).write_text(card, "utf-8")
        model = model_for(tokenizer, "modern")
        return LoadedModel(model, tokenizer, model.config, folder, step)

    return build


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run with the files that describe it."""
    run = RunFolder(tmp_path / "runs" / "mine")
    run.final.mkdir(parents=True)
    run.config.write_text(to_toml(load_config("small", ["data.source=/home/jane/2024.txt"])))
    write_json(run.environment, {})
    write_sealed_json(run.evaluation, {"step": 40, "weights_of_step": 30})
    return run


def test_a_run_is_named_by_its_folder_and_step(run: RunFolder, loaded) -> None:
    text = "`2024.txt` (license not stated)"
    assert bases_of(loaded(run.final)) == (Base("mine", "run", "step 30", text=text),)
    assert bases_of(loaded(run.checkpoint(40), step=40)) == (Base("mine", "run", "step 40", text=text),)


def test_the_license_of_known_text_is_named(run: RunFolder, loaded) -> None:
    run.config.write_text(to_toml(load_config("demo")))
    assert "CC BY-SA 3.0" in bases_of(loaded(run.final))[0].text


def test_the_bases_of_a_run_follow_it(run: RunFolder, loaded) -> None:
    earlier = (Base("me/model", "hub", "revision abc", "mit"), Base("me/older", "hub"))
    write_json(run.environment, to_stored(earlier))
    assert bases_of(loaded(run.final))[1:] == earlier


@pytest.mark.parametrize("broken", ["environment", "config", "evaluation"])
def test_a_run_with_a_broken_file_is_still_named(run: RunFolder, loaded, broken: str) -> None:
    getattr(run, broken).write_text("{")
    assert bases_of(loaded(run.final))[0].name == "mine"


def test_a_model_on_the_hub_has_its_name_revision_and_license(tmp_path: Path, loaded) -> None:
    folder = tmp_path / "models--me--my--model" / "snapshots" / "0123456789abcdef"
    card = "---\nlicense: apache-2.0\nbase_model: me/older\n---\n# Model\n"
    assert bases_of(loaded(folder, card)) == (
        Base("me/my--model", "hub", "revision 0123456789ab", "apache-2.0"),
        Base("me/older", "hub"),
    )


@pytest.mark.parametrize(
    ("metadata", "license", "earlier"),
    [
        ("license: other\nlicense_name: gemma", "gemma", ()),
        ("license: [mit, apache-2.0]\nbase_model:\n- me/older", "mit, apache-2.0", (Base("me/older", "hub"),)),
        ("base_model: /home/jane/models/x", "", ()),
        ("base_model: [a/b, c/d]\nbase_model_relation: merge", "", ()),
        ("license: 3\nbase_model: {a: b}", "", ()),
        ("license: [unclosed", "", ()),
        ("- a\n- list", "", ()),
        ("license: 'two\n\n  lines'", "two lines", ()),
    ],
)
def test_the_license_and_base_in_a_folders_card_are_read(
    metadata: str, license: str, earlier: tuple[Base, ...], tmp_path: Path, loaded
) -> None:
    model = loaded(tmp_path / "theirs", f"---\n{metadata}\n---\n# Model\n")
    assert bases_of(model) == (Base("theirs", "folder", license=license), *earlier)


def test_a_folder_without_a_card_has_only_a_name(tmp_path: Path, loaded) -> None:
    assert bases_of(loaded(tmp_path / "the`irs\n2")) == (Base("the`irs 2", "folder"),)


EARLIER = (Base("mine", "run", "step 20", text="`a.txt` (license not stated)"), Base("me/model", "hub", "", "mit"))


def test_a_folder_outside_its_run_keeps_the_chain_and_licenses(tmp_path: Path, loaded) -> None:
    """In a copy of final/ or an export: from the metadata of its card."""
    card = with_provenance("---\nlicense: apache-2.0\n---\n# Model\n", "`b.txt` (CC0)", EARLIER)
    own = Base("copy", "folder", license="apache-2.0", text="`b.txt` (CC0)")
    assert bases_of(loaded(tmp_path / "copy", card)) == (own, *EARLIER)


def test_a_checkpoint_outside_its_run_keeps_the_chain(tmp_path: Path, loaded) -> None:
    model = loaded(tmp_path / "step-00000020", step=20)
    (model.folder / CONFIG).write_text(to_toml(load_config("small", ["data.source=/home/jane/2024.txt"])))
    write_json(model.folder / STATE, {"resolved": to_stored(EARLIER)})
    text = "`2024.txt` (license not stated)"
    assert bases_of(model) == (Base("step-00000020", "folder", "step 20", text=text), *EARLIER)
    (model.folder / STATE).write_text("{")
    assert bases_of(model) == (Base("step-00000020", "folder", "step 20", text=text),)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ('{name: "a\\nb", kind: run, version: "", license: "", text: ""}', (Base("a b", "run"),)),
        ('{name: "no\\\\hub", kind: hub, version: "", license: "", text: ""}', (Base("no\\hub", "folder"),)),
        ('{name: "\\ud800", kind: run, version: "", license: "", text: ""}', (Base("?", "run"),)),
        ('{name: a, kind: run, version: "", license: "", text: ""}, 5', (Base("a", "run"),)),
        ('{name: a, kind: other, version: "", license: "", text: ""}', ()),
        ("{name: a}", ()),
    ],
)
def test_provenance_from_foreign_cards_is_cleaned(entry: str, told: tuple[Base, ...], tmp_path, loaded) -> None:
    model = loaded(tmp_path / "theirs", f"---\nacorn:\n  starts_from: [{entry}]\n  trained_on: [1]\n---\n")
    assert bases_of(model) == (Base("theirs", "folder"), *told)


@pytest.mark.parametrize("metadata", ["acorn: 5", "acorn: [a]", "acorn: {starts_from: 5}", 'license: "\\ud800"'])
def test_invalid_provenance_is_ignored(metadata: str, tmp_path: Path, loaded) -> None:
    own, *earlier = bases_of(loaded(tmp_path / "theirs", f"---\n{metadata}\nbase_model: me/older\n---\n"))
    assert earlier == [Base("me/older", "hub")]
    assert own.license.isascii()
