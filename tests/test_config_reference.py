"""The reference describes settings as the config accepts them."""

from __future__ import annotations

import pytest

from acorn.config import Config
from acorn.config_files import flatten, load_config
from acorn.config_reference import Setting, find_settings, settings, shown
from acorn.errors import UsageError


def find(key: str) -> Setting:
    [setting] = find_settings(key)
    return setting


def takes(setting: Setting, value: str) -> bool:
    try:
        load_config(None, [f"{setting.key}={value}"])
    except UsageError as error:
        return f"  - {setting.key}: " not in error.what  # a valid value, together with another setting
    return True


def test_every_setting_is_listed_with_its_default() -> None:
    defaults = flatten(Config())
    assert [setting.key for setting in settings()] == list(defaults)
    for setting in settings():
        assert setting.default == defaults[setting.key]
        assert setting.description.endswith(".")
        assert takes(setting, shown(setting.default))


def test_only_the_listed_choices_are_accepted() -> None:
    chosen = [setting for setting in settings() if setting.choices]
    assert {"model.architecture", "train.compile", "report.trackers"} <= {setting.key for setting in chosen}
    for setting in chosen:
        assert all(takes(setting, choice) for choice in setting.choices), setting
        assert not takes(setting, "otherwise"), setting


def test_listed_limits_are_those_that_the_config_checks() -> None:
    limited = [s for s in settings() if s.minimum is not None or s.maximum is not None]
    assert len(limited) > 30
    for setting in limited:
        for limit, is_out, step in ((setting.minimum, setting.above, -1), (setting.maximum, setting.below, 1)):
            if limit is not None and abs(limit) < 2**62:
                assert takes(setting, str(limit)) == (not is_out), setting
                assert not takes(setting, str(limit + step)), setting


@pytest.mark.parametrize(
    ("key", "type", "allowed"),
    [
        ("train.steps", "integer", "0 or more"),
        ("train.batch_size", "integer", "1 to 16,777,216"),
        ("train.seed", "integer", "0 or more and below 9,223,372,036,854,775,808"),
        ("data.valid_fraction", "number", "above 0 and below 1"),
        ("model.dropout", "number", "0 or more and below 1"),
        ("optimizer.eps", "number", "above 0"),
        ("schedule.warmup", "number", "0 to 1"),
        ("train.compile", "text, or true or false", "auto, true, false"),
        ("train.deterministic", "true or false", "true, false"),
        ("data.source", "list of text", ""),
        ("report.trackers", "list of text", "tensorboard, wandb, trackio"),
        ("data.text_field", "text", "not empty"),
        ("data.shards", "text", ""),
    ],
)
def test_types_and_limits_are_described(key: str, type: str, allowed: str) -> None:
    assert (find(key).type, find(key).allowed) == (type, allowed)


def test_a_setting_is_found_by_its_key_section_or_last_part() -> None:
    assert find("lr").key == "optimizer.lr"
    assert [setting.key for setting in find_settings("name")] == ["name"]
    assert [setting.key for setting in find_settings("tokenizer")] == [
        "tokenizer.kind",
        "tokenizer.vocab_size",
        "tokenizer.path",
    ]
    assert [setting.key for setting in find_settings("vocab_size")] == ["tokenizer.vocab_size", "model.vocab_size"]


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("optimizer.lrr", "optimizer.lr"), ("optimiser", "optimizer"), ("stepz", "train.steps")]
)
def test_a_wrong_key_gets_a_suggestion(wrong: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean {nearest}[?]"):
        find_settings(wrong)
    with pytest.raises(UsageError, match=r"no setting zzzzzz\."):
        find_settings("zzzzzz")
