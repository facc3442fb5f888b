"""`acorn presets`, and the presets in other commands' help."""

from __future__ import annotations

import json

import pytest

from acorn.config_files import load_config, preset_names, preset_purpose, preset_values
from acorn.config_reference import find_settings


def test_each_preset_is_listed_with_its_purpose_and_size(acorn) -> None:
    done = acorn("presets")
    assert done.returncode == 0
    for name in preset_names():
        assert any(line.split() == [name, *preset_purpose(name).split()] for line in done.stdout.splitlines())
    assert "1,475,456 parameters: modern, 2 layers of width 128, context 256, bpe of 8,192" in done.stdout
    assert "2,048 tokens per step, 10 minutes" in done.stdout
    assert "30,000 steps, 122,880,000 tokens" in done.stdout


def test_json_is_one_object(acorn) -> None:
    found = {facts["name"]: facts for facts in json.loads(acorn("presets", "--json").stdout)["presets"]}
    assert list(found) == preset_names()
    small = load_config("small")
    assert found["small"]["minutes"] == small.train.minutes
    assert found["small"]["tokens_per_step"] == small.train.batch_size * small.model.block_size
    assert found["demo"]["source"] == ["bundled:wikitext-2"]


@pytest.mark.parametrize("command", ["pretrain", "plan"])
def test_help_lists_the_presets(acorn, command: str) -> None:
    shown = " ".join(acorn(command, "--help").stdout.split())
    for name in preset_names():
        assert f"{name} {preset_purpose(name)}" in shown


def test_a_preset_is_shown_with_all_its_settings(acorn) -> None:
    done = acorn("presets", "small")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:2] == ["small", preset_purpose("small")]
    shown = {line.split()[0]: line for line in lines[3:] if "." in line.partition(" ")[0]}
    values = preset_values("small")
    assert list(shown) == list(values)
    for key, value in values.items():
        rest = shown[key].removeprefix(key).strip()
        assert rest.startswith(f'"{value}"' if isinstance(value, str) else str(value))
        assert rest.endswith(find_settings(key)[0].description)
    found = json.loads(acorn("presets", "small", "--json").stdout)
    assert (found["name"], found["parameters"]) == ("small", 1_475_456)
    assert {setting["key"]: setting["value"] for setting in found["settings"]} == values
    assert all(setting["description"] for setting in found["settings"])


def test_a_former_name_is_accepted_and_a_wrong_one_refused(acorn) -> None:
    assert acorn("presets", "seed").stdout == acorn("presets", "original").stdout
    done = acorn("presets", "smal")
    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no preset 'smal'; did you mean small?" in done.stderr
