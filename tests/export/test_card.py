"""What an export says of where its model comes from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from small_models import model_for

from acorn.checkpoint.bases import bases_of
from acorn.checkpoint.load import LoadedModel
from acorn.config_files import load_config, to_toml
from acorn.data.prepare import prepare
from acorn.export.card import card_of, name_of
from acorn.files import write_json
from acorn.origin import Base, to_stored
from acorn.run_folder import CONFIG, STATE, RunFolder
from acorn.text.splits import TextSplits
from acorn.tokenizer.tokenizer import Tokenizer


@pytest.fixture
def loaded(tokenizer: Tokenizer):
    """A model as if it had been loaded from `folder`."""

    def build(folder: Path, step: int | None = None) -> LoadedModel:
        folder.mkdir(parents=True, exist_ok=True)
        model = model_for(tokenizer, "modern")
        return LoadedModel(model, tokenizer, model.config, folder, step)

    return build


def test_an_existing_card_is_exported_unchanged(tmp_path: Path, loaded) -> None:
    model = loaded(tmp_path / "theirs")
    (model.folder / "README.md").write_text("# Their card\n")
    assert card_of(model) == "# Their card\n"
    assert name_of(model) == "theirs"


def test_a_model_of_the_hub_without_a_card_names_its_repository(tmp_path: Path, loaded) -> None:
    model = loaded(tmp_path / "models--me--mine" / "snapshots" / "0123")
    card = card_of(model)
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == "me/mine"
    assert "acorn exported from `me/mine` on the Hugging Face Hub (revision 0123)" in card
    assert name_of(model) == "mine"


def test_a_card_of_an_unknown_folder_makes_no_claims(tmp_path: Path, loaded) -> None:
    card = card_of(loaded(tmp_path / "theirs"))
    assert "base_model" not in yaml.safe_load(card.split("---\n")[1])
    assert "scratch" not in card
    assert str(tmp_path) not in card


def test_the_card_of_a_checkpoint_names_its_base_and_rising_validation_loss(
    tmp_path: Path, loaded, tokenizer: Tokenizer
) -> None:
    (tmp_path / "my.txt").write_text("\n\n".join(f"The line {number} of the text." for number in range(200)))
    run = RunFolder(tmp_path / "run")
    run.root.mkdir()
    config = load_config("small", [f"data.source={tmp_path / 'my.txt'}", "train.init_from=hf:me/mine"])
    run.config.write_text(to_toml(config))
    write_json(run.environment, to_stored((Base("me/mine", "hub", "revision 0123", "mit"),)))
    prepare(TextSplits.open(config.data), tokenizer, run.data)
    model = loaded(run.checkpoint(4), step=4)
    counters = {"step": 4, "samples": 8, "tokens": 64, "best_step": 2, "best_loss": 5.0}
    write_json(model.folder / STATE, {"counters": {**counters, "valid_step": 4, "valid_loss": 5.5}})
    card = card_of(model)
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == "me/mine"
    assert "(revision 0123) | mit |" in card
    assert "scratch" not in card
    assert "lowest at step 2 (5.000 nats per token) and had risen to 5.500 at step 4" in card
    write_json(model.folder / STATE, {"counters": {**counters, "valid_step": 4, "valid_loss": 5.0}})
    assert "lowest at step" not in card_of(model)


def test_an_export_of_a_model_on_the_hub_names_its_repository(tmp_path: Path, loaded) -> None:
    """The published card does not contain it, but a model trained from the export must name it."""
    model = loaded(tmp_path / "models--me--mine" / "snapshots" / "0123")
    published = "---\nlicense: mit\nbase_model: me/older\n---\n# Their card\n"
    (model.folder / "README.md").write_text(published)
    card = card_of(model)
    assert card.endswith("license: mit\nbase_model: me/older\n---\n# Their card\n")
    copy = loaded(tmp_path / "export")
    (copy.folder / "README.md").write_text(card)
    own, *earlier = bases_of(copy)
    assert own == Base("export", "folder", license="mit")
    assert earlier == [Base("me/mine", "hub", "revision 0123", "mit"), Base("me/older", "hub")]


def test_a_checkpoint_outside_its_run_names_its_text_and_bases(tmp_path: Path, loaded) -> None:
    model = loaded(tmp_path / "step-00000004", step=4)
    (model.folder / CONFIG).write_text(to_toml(load_config("small", ["data.source=my.txt"])))
    base = Base("me/mine", "hub", "revision 0123", "mit")
    write_json(model.folder / STATE, {"resolved": to_stored([base])})
    card = card_of(model)
    assert "It was trained on `my.txt` (license not stated)." in card
    assert yaml.safe_load(card.split("---\n")[1])["acorn"]["starts_from"] == [dataclasses.asdict(base)]
