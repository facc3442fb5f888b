"""The runs of a sweep's command line and their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from acorn.config_files import load_config, with_values
from acorn.errors import UsageError
from acorn.run.grid import MAX_NAME_BYTES, build_grid

FIXED = ["data.source=my.txt", "train.steps=10"]


def test_every_combination_is_a_run_named_after_its_settings() -> None:
    runs = build_grid("small", [*FIXED, "optimizer.lr=[0.005,1e-2]", "train.seed=[0,1,2]"])
    assert [run.name for run in runs] == [f"lr={lr},seed={seed}" for lr in ("0.005", "0.01") for seed in (0, 1, 2)]
    expected = load_config("small", [*FIXED, "optimizer.lr=0.01", "train.seed=1"])
    assert runs[4].config == with_values(expected, {"name": "lr=0.01,seed=1"})
    assert runs[4].settings == {"optimizer.lr": 0.01, "train.seed": 1}


def test_for_a_list_setting_a_list_is_one_value() -> None:
    runs = build_grid("small", ['data.source=["a.txt","b.txt"]', "train.seed=[0,1]"])
    assert [run.config.data.source for run in runs] == [("a.txt", "b.txt")] * 2
    runs = build_grid("small", ['data.source=[["a.txt"],["a.txt","in/b.txt"],"c.txt"]'])
    assert [run.config.data.source for run in runs] == [("a.txt",), ("a.txt", "in/b.txt"), ("c.txt",)]
    assert [run.name for run in runs] == ["source=a.txt", "source=a.txt-in-b.txt", "source=c.txt"]
    runs = build_grid("small", [*FIXED, 'train.sample_prompts=["One","Two"]', "train.seed=[0]"])
    assert runs[0].config.train.sample_prompts == ("One", "Two")


def test_a_length_replaces_that_of_the_preset() -> None:
    runs = build_grid("small", ["data.source=my.txt", "train.steps=[10,20]"])
    assert [(run.config.train.steps, run.config.train.minutes) for run in runs] == [(10, 0), (20, 0)]


def test_a_given_name_is_kept() -> None:
    assert build_grid("small", [*FIXED, "name=mine", "train.seed=[0]"])[0].config.name == "mine"


def test_names_are_unique_and_valid_in_file_systems() -> None:
    runs = build_grid("small", ['data.source=[["A.txt"],["a.txt"],["a*txt"],["***"]]', "train.seed=[0]"])
    names = [run.name.casefold() for run in runs]
    assert len(set(names)) == 4
    assert not any(set(name) & set('/\\*?"<>| ') for name in names)
    long = ['"' + letter * 300 + '.txt"' for letter in "xy"]
    runs = build_grid("small", [f"data.source=[[{long[0]}],[{long[1]}]]"])
    assert all(len(run.name.encode()) <= MAX_NAME_BYTES for run in runs)
    runs = build_grid(
        "small", [*FIXED, "optimizer.name=['adamw','muon']", "tokenizer.kind=['bpe']", "model.tied=[true]"]
    )
    assert [run.name for run in runs] == [f"name={name},kind=bpe,tied=true" for name in ("adamw", "muon")]
    runs = build_grid("small", [*FIXED, "optimizer.name=['adamw']", "schedule.name=['linear','wsd']"])
    assert runs[1].name == "optimizer.name=adamw,schedule.name=wsd"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (FIXED, "nothing to sweep"),
        ([*FIXED, "train.seed=[]"], "has no value"),
        ([*FIXED, "train.seed=[0,1]", "train.seed=[2]"], "given twice"),
        ([*FIXED, "train.seed=[0,1,0]"], "Two runs would be the same"),
        ([*FIXED, "train.sed=[0,1]"], "did you mean train.seed"),
        ([*FIXED, "model.n_head=[4,3]"], "The config of the run n_head=3 is not valid"),
        ([*FIXED, "train.steps=[10]"], "given twice"),
        ([*FIXED, "train.seed"], "has no value"),
        ([*FIXED, "optimizer.lr=[0.01,-1]"], "The config of the run lr=-1 is not valid"),
    ],
)
def test_invalid_grids_are_refused(arguments: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        build_grid("small", arguments)


def test_a_run_records_its_preset_or_file(tmp_path: Path) -> None:
    assert build_grid("small", [*FIXED, "train.seed=[0]"])[0].origin == "preset small"
    path = tmp_path / "mine.toml"
    path.write_text("")
    assert build_grid(str(path), [*FIXED, "train.seed=[0]"])[0].origin == str(path)


@pytest.mark.parametrize(
    ("argument", "right"),
    [
        ("model.architecture=[gpt2,modern]", """'model.architecture=["gpt2","modern"]'"""),
        ("model.architecture=[gpt2, 'modern']", """'model.architecture=["gpt2",'modern']'"""),
        ("train.seed=[0,one]", """'train.seed=[0,"one"]'"""),
        ("model.architecture=[gpt2,]]", "give the values of a setting as a list"),
    ],
)
def test_the_message_about_unquoted_strings_shows_the_quoted_form(argument: str, right: str) -> None:
    with pytest.raises(UsageError, match="strings in a list need quotes") as refused:
        build_grid("small", [*FIXED, argument, "optimizer.lr=[0.1,0.2]"])
    assert refused.value.fix
    assert right in refused.value.fix


def test_a_glob_pattern_is_not_a_list() -> None:
    runs = build_grid("small", ["data.source=[ab]", "train.seed=[0]", "train.steps=1"])
    assert runs[0].config.data.source == ("[ab]",)


@pytest.mark.parametrize(
    ("source", "argument"), [("smal", "train.seed=[0,1]"), ("small", "train.sed=[0,1]"), ("small", "data.sauce=x")]
)
def test_an_error_of_all_runs_names_no_single_run(source: str, argument: str) -> None:
    with pytest.raises(UsageError) as refused:
        build_grid(source, [*FIXED, argument, "optimizer.lr=[0.1,0.2]"])
    assert "is not valid" not in str(refused.value)
