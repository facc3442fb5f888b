"""`acorn config`."""

from __future__ import annotations

import json

from acorn.config import Config
from acorn.config_files import flatten


def test_one_setting_is_explained(acorn) -> None:
    done = acorn("config", "data.valid_fraction")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "data.valid_fraction",
        Config.model_fields["data"].annotation.model_fields["valid_fraction"].description,
        "",
        "type     number",
        "default  0.1",
        "allowed  above 0 and below 1",
    ]
    assert done.stderr == ""


def test_all_settings_or_a_section_are_listed_one_per_line(acorn) -> None:
    def keys(*arguments: str) -> list[str]:
        return [line.split()[0] for line in acorn("config", *arguments).stdout.splitlines() if line]

    assert keys() == list(flatten(Config()))
    assert keys("checkpoint") == ["checkpoint.keep", "checkpoint.final"]


def test_json_is_one_object(acorn) -> None:
    found = json.loads(acorn("config", "model.tied", "--json").stdout)["settings"]
    assert found == [
        {
            "key": "model.tied",
            "type": "text, or true or false",
            "default": "auto",
            "allowed": "auto, true, false",
            "choices": ["auto", "true", "false"],
            "description": found[0]["description"],
        }
    ]
    assert len(json.loads(acorn("config", "--json").stdout)["settings"]) == len(flatten(Config()))


def test_a_wrong_key_is_refused_with_a_suggestion(acorn) -> None:
    done = acorn("config", "optimizer.momentun")
    assert done.returncode == 2
    assert "did you mean optimizer.momentum?" in done.stderr
    assert done.stdout == ""


def test_the_name_of_a_preset_is_answered_with_its_command(acorn) -> None:
    for name in ("small", "gpt2-124m"):
        done = acorn("config", name)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"There is no setting {name}; {name} is a preset." in done.stderr
        assert f"`acorn presets {name}`" in done.stderr


def test_names_from_other_programs_suggest_acorns_setting(acorn) -> None:
    meant = "did you mean optimizer.lr?"
    assert meant in acorn("config", "optimizer.learning_rate").stderr
    assert meant in acorn("pretrain", "small", "data.source=x.txt", "learning_rate=1").stderr
    done = acorn("tokenizer", "train", "--input", "x.txt", "tokenizer.vocab=300")
    assert "unknown key tokenizer.vocab; did you mean tokenizer.vocab_size?" in done.stderr


def test_an_empty_key_is_refused_and_a_section_suggested(acorn) -> None:
    done = acorn("config", "")
    assert done.returncode == 2
    assert "An empty string is not a setting." in done.stderr
    assert "did you mean train?" in acorn("config", "training").stderr
