"""Configs as text: presets, overrides, errors, and conversion to TOML and back."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import acorn
from acorn.config import Config
from acorn.config_files import (
    build_config,
    differences,
    flatten,
    load_config,
    load_run_config,
    preset_names,
    preset_purpose,
    preset_values,
    to_toml,
    with_values,
)
from acorn.errors import UsageError
from acorn.model.sizing import size_of

PRESETS = Path(acorn.__file__).parent / "presets"


def refusal(*overrides: str, source: str | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        load_config(source, overrides)
    return str(caught.value)


@pytest.mark.parametrize("name", preset_names())
def test_presets_resolve_and_have_the_stated_size(name: str) -> None:
    """Its first line names its purpose. The parameter count below equals that of a network on the meta device."""
    config = load_config(name)
    assert config.name == name
    assert config.train.steps or config.train.minutes
    model = config.model.model_copy(update={"vocab_size": config.tokenizer.vocab_size})
    first, *others = (PRESETS / f"{name}.toml").read_text("utf-8").partition("\n\n")[0].splitlines()
    assert re.fullmatch(r"# [A-Z][^\n]+\.", first), "the first line says what the preset is for, in one sentence"
    assert first == f"# {preset_purpose(name)}"
    stated = re.findall(r"^# ([\d,]+) parameters\b", "\n".join(others), re.M)
    assert stated == [f"{size_of(model).parameters:,}"], "the comment below it begins with the count"


LONE_OVERRIDES = [
    "model.architecture=original",
    "model.architecture=gpt2",
    "model.architecture=modern",
    "model.n_embd=100",
    "model.n_embd=96",
    "model.tied=false",
    "model.tied=true",
    "model.block_size=64",
    "optimizer.name=adamw",
    "optimizer.name=muon",
    "schedule.name=wsd",
    "schedule.warmup=0.9",
    "schedule.decay=1",
    "train.batch_size=7",
    "train.steps=10",
    "train.minutes=0.5",
    "tokenizer.kind=wordpiece",
    "tokenizer.kind=bpe",
    "data.clean=none",
]


@pytest.mark.parametrize("name", preset_names())
def test_a_single_override_never_makes_a_preset_invalid(name: str) -> None:
    for override in LONE_OVERRIDES:
        config = load_config(name, [override])
        model = config.model.model_copy(update={"vocab_size": 300})
        assert size_of(model).parameters > 0


def test_a_given_length_clears_the_other_one() -> None:
    assert load_config("demo", ["train.steps=7"]).train.minutes == 0
    assert load_config("original", ["train.minutes=2"]).train.steps == 0
    assert "exclude each other" in refusal("train.steps=7", "train.minutes=2")


def test_the_former_name_of_the_original_is_read() -> None:
    former, current = load_config("seed"), load_config("original")
    assert (former.name, current.name) == ("seed", "original")  # a run started as `seed` is found in runs/seed
    assert former.model == current.model == load_config("original", ["model.architecture=seed"]).model
    assert differences(former, current) == {"name": ("seed", "original")}


def test_all_errors_are_reported_at_once_with_suggested_keys() -> None:
    """Fault 25."""
    message = refusal("trian.steps=5", "model.n_heads=4", "train.batch_size=abc", "data.clean=x", "model.n_embd=7")
    assert "unknown key trian; did you mean train?" in message
    assert "unknown key model.n_heads; did you mean model.n_head?" in message
    assert 'train.batch_size: should be a whole number, not "abc"' in message
    assert "data.clean: should be 'none' or 'wikitext', not \"x\"" in message
    assert "4 errors" in message or "5 errors" in message


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("nonsense", "not a setting"),
        ("model.n_embd=7", "even head width"),
        ("model.n_head=3", "must be a multiple of n_head (3)"),
        ("schedule.short_context=60", "schedule.short_context (60) must be a divisor of model.block_size (256)"),
        ("model.n_kv_head=3", "multiple of n_kv_head"),
        ("optimizer.lr=inf", "finite"),
        ("train.seed=-1", "at least 0"),
        ("train.threads=1000000", "at most 4,096"),
        ("train.sample_tokens=1000000", "at most 65,536"),
        ("name=../up", "slashes"),
        ("data.source=2024", "quote it"),
        ("train=3", "a section with settings"),
    ],
)
def test_each_error_is_reported(override: str, part: str) -> None:
    assert part in refusal(override)


def test_override_values_are_toml_or_plain_strings() -> None:
    config = load_config(None, ["data.source=my/*.txt", "train.compile=true", "optimizer.lr=1e-3", 'name="7"'])
    assert config.data.source == ("my/*.txt",)
    assert config.train.compile is True
    assert config.optimizer.lr == 1e-3
    assert config.name == "7"
    assert load_config(None, ['data.source=["a", "b"]']).data.source == ("a", "b")
    assert load_config(None, ["data.source="]).data.source == ()
    assert load_config(None, ["train.sample_prompts="]).train.sample_prompts == ("",)


def test_a_config_file_is_read(tmp_path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xef\xbb\xbf[train]\nsteps = 9\n")
    assert load_config(path).train.steps == 9
    assert load_config(path).name == "mine"
    path.write_text("[train\nsteps = 9")
    assert "not TOML" in refusal(source=str(path))
    path.write_text("train = 3")
    assert "a section with settings" in refusal(source=str(path))
    path.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in refusal(source=str(path))
    assert "did you mean small?" in refusal(source="smal")


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(
    name=st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1, max_size=10),
    sources=st.lists(text.filter(bool), max_size=3),
    lr=st.floats(0, 1e6, width=32, allow_subnormal=False),
    seed=st.integers(0, 2**63 - 1),
    compiled=st.sampled_from(["auto", True, False]),
)
@settings(max_examples=100, deadline=None)
def test_a_config_survives_toml(tmp_path_factory, name, sources, lr, seed, compiled) -> None:
    values = {
        "name": name,
        "data": {"source": sources},
        "optimizer": {"lr": lr},
        "train": {"seed": seed, "compile": compiled, "sample_prompts": sources},
    }
    config = build_config(values, "here")
    assert build_config(tomllib.loads(to_toml(config)), "there") == config


@pytest.mark.parametrize("key", ["source", "valid_source", "test_source"])
def test_an_empty_string_among_sources_is_refused(key: str) -> None:
    """Alone, it means no source. In a list, it would mean the current folder."""
    assert getattr(load_config(None, [f"data.{key}="]).data, key) == ()
    assert getattr(load_config(None, f'data.{key}=""').data, key) == ()
    for value in ('[""]', '["", "a.txt"]', '["a.txt", ""]'):
        with pytest.raises(UsageError, match=f'data.{key}: "" in a list names no text'):
            load_config(None, [f"data.{key}={value}"])
    assert load_config(None, ['train.sample_prompts=["", "A"]']).train.sample_prompts == ("", "A")


def test_differences_and_changes_between_configs() -> None:
    config = Config()
    changed = with_values(config, {"train.steps": 5, "name": "other"})
    assert differences(config, changed) == {"name": ("run", "other"), "train.steps": (0, 5)}
    assert flatten(changed)["train.steps"] == 5
    with pytest.raises(UsageError, match="exclude"):
        with_values(changed, {"train.minutes": 1.0})


def test_an_initial_model_replaces_the_presets_network_and_tokenizer() -> None:
    """Settings on the command line are kept, to be compared with the model."""
    config = load_config("small", ["train.init_from=runs/mine", "model.n_layer=3"])
    assert config.model.model_fields_set == {"n_layer"}
    assert config.tokenizer.model_fields_set == set()
    assert config.optimizer == load_config("small").optimizer


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.tied=true"], "an untied head (model.tied=false)"),
        (["model.architecture=original"], "a modern or gpt2 network"),
        (["train.init_from=runs/mine"], "no train.init_from"),
    ],
)
def test_bigram_initialization_needs_a_suitable_network(overrides: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        load_config("demo", [*overrides, "train.init=bigrams"])
    assert load_config("demo", overrides).chosen_init == "random"  # it has `auto`
    assert load_config("demo").chosen_init == "bigrams"


@pytest.mark.parametrize(
    ("name", "canonical"),
    [("UTF8", "utf-8"), ("latin1", "iso8859-1"), ("ISO-8859-1", "iso8859-1"), ("windows-1252", "cp1252")],
)
def test_an_encoding_has_one_name(name: str, canonical: str) -> None:
    assert load_config(None, [f"data.encoding={name}"]).data.encoding == canonical


@pytest.mark.parametrize(
    "name",
    [
        *("klingon", "base64", "rot13", "hex", "undefined", "idna", "../utf_8", r"a\u0000b", ""),
        *("punycode", "unicode_escape", "raw-unicode-escape", "RAW_UNICODE_ESCAPE", "charmap", "mbcs", "oem"),
    ],
)
def test_unknown_text_encodings_are_refused(name: str) -> None:
    assert "is not an encoding of text files that Python knows" in refusal(f'data.encoding="{name}"')


@pytest.mark.parametrize("name", ["my.txt", "notes.md", "rows.csv", "page.html", "rows.jsonl.gz"])
def test_a_text_file_given_as_config_is_recognized_by_its_suffix(name: str) -> None:
    assert f"{name} is a text file" in refusal(source=name)


def test_a_config_of_an_earlier_version_may_lack_newer_keys(tmp_path: Path) -> None:
    text = to_toml(load_config("small"))
    newer = ("n_inner", "head_width", "qk_norm", "norm_eps", "rope_theta", "init_from", "encoding")
    lines = [line for line in text.splitlines() if not line.startswith(tuple(f"{key} =" for key in newer))]
    (tmp_path / "small.toml").write_text("\n".join(lines))
    assert load_config(tmp_path / "small.toml") == load_config("small")


def test_the_message_about_an_integer_with_a_decimal_point_shows_the_integer() -> None:
    assert "train.steps: should be written as a whole number, 1000, not 1000.0" in refusal("train.steps=1e3")
    assert "not 1000.5" in refusal("train.steps=1000.5")
    assert "written as" not in refusal("train.steps=inf")


def test_a_preset_has_the_values_of_its_file() -> None:
    for name in preset_names():
        values, flat = preset_values(name), flatten(load_config(name))
        assert values
        for key, value in values.items():
            assert flat[key] == (tuple(value) if isinstance(value, list) else value), key


def test_epochs_are_a_third_length_that_excludes_the_others(tmp_path: Path) -> None:
    """Each override clears the other lengths; two in one place are refused, on the command line and in a file."""
    assert load_config("small", ["finetune.epochs=3"]).train.steps == 0
    config = load_config("small", ["finetune.epochs=3"])
    assert with_values(config, {"train.steps": 12}).finetune.epochs == 3, "the steps that the epochs come to"
    assert "exclude each other" in refusal("finetune.epochs=3", "train.steps=12")
    assert "exclude each other" in refusal("finetune.epochs=3", "train.minutes=1")
    file = tmp_path / "mine.toml"
    file.write_text("[train]\nsteps = 12\n[finetune]\nepochs = 3\n")
    assert "exclude each other" in refusal(source=str(file))


def test_a_finetuning_run_reads_its_epochs_and_steps_back(tmp_path: Path) -> None:
    """What a run wrote holds both; a longer run by either clears the other."""
    config = load_config(
        None, ["finetune.task=classify", "finetune.epochs=3", "lora.rank=4", 'finetune.labels=["a", "b"]']
    )
    config = with_values(config, {"train.steps": 12})
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config))
    assert load_run_config(path) == config
    assert load_run_config(path, ["train.steps=20"]).finetune.epochs == 0
    assert load_run_config(path, ["finetune.epochs=4"]).train.steps == 0


def test_configs_of_pretraining_have_no_sections_of_finetuning() -> None:
    """So that runs from before there was finetuning write the same bytes."""
    text = to_toml(load_config("small"))
    assert "[finetune]" not in text
    assert "[lora]" not in text
    assert load_config("small").trains_on_text
    assert "[finetune]" in to_toml(load_config("small", ["finetune.task=chat"]))
    assert not load_config("small", ["lora.rank=4"]).trains_on_text


def test_a_length_of_zero_on_the_command_line_excludes_no_other_length() -> None:
    config = load_config("small", ["train.steps=0", "finetune.epochs=2"])
    assert (config.train.steps, config.train.minutes, config.finetune.epochs) == (0, 0, 2)


@pytest.mark.parametrize("key", ["train.init_from", "tokenizer.path", "data.shards"])
def test_a_path_without_a_value_is_refused(key: str) -> None:
    """It may be that of a shell variable that is not set. Written as text, it clears the value of a file."""
    for override in (f"{key}=", f"{key}= "):
        assert "names nothing" in refusal(override)
    assert flatten(load_config("small", [f'{key}=""']))[key] == ""


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.steps=abc", 'train.steps: should be a whole number, not "abc"'),
        ("train.steps=-1", "train.steps: should be at least 0, not -1"),
        ("train.seed=-1", "train.seed: should be at least 0, not -1"),
        ("train.deterministic=maybe", 'train.deterministic: should be true or false, not "maybe"'),
        ("model.tied=2", "model.tied: should be 'auto', true or false, not 2"),
        ("model.dropout=1.5", "model.dropout: should be below 1, not 1.5"),
        ("optimizer.lr=nan", "optimizer.lr: should be a finite number, not nan"),
        ("optimizer.lr=[1]", "optimizer.lr: should be a number, not [1]"),
        ("optimizer.eps=0", "optimizer.eps: should be above 0, not 0"),
        ('data.text_field=""', 'data.text_field: should be text that is not empty, not ""'),
        ("train=5", "train: should be a section with settings, not 5"),
        ("name=a/b", 'name: should be a name without slashes and control characters, not "a/b"'),
        ("model.n_layer=3000", "model.n_layer: should be at most 2,048, not 3000"),
    ],
)
def test_wrong_values_are_told_in_plain_words(override: str, expected: str) -> None:
    with pytest.raises(UsageError) as error:
        load_config("small", [override])
    assert str(error.value).splitlines()[1:] == [
        f"  - {expected}",
        "  where: the command line",
        "  fix:   correct the setting above; `acorn config` lists all settings with their meaning",
    ]


def test_errors_name_the_place_that_they_are_from(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("[train]\nstep = 5\n")
    for overrides, where in (
        (["train.seed=1"], str(path)),
        (["train.seed=x"], f"{path}, with the settings of the command line"),
    ):
        with pytest.raises(UsageError) as error:
            load_config(path, overrides)
        assert error.value.where == where
    with pytest.raises(UsageError) as error:
        load_config("small", ["model.n_embd=33", "model.n_head=2"])
    assert error.value.where == "preset small, with the settings of the command line"


def test_spaces_around_the_equals_sign_are_explained() -> None:
    with pytest.raises(UsageError, match=r"The setting data.source has no value.\n.*\n.*without spaces around"):
        load_config("small", ["data.source", "=", "my.txt"])
