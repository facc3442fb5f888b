from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from acorn.errors import UsageError
from acorn.files import write_json
from acorn.origin import Base, to_stored
from acorn.report.html import write_report
from acorn.report.run_facts import read_run

MakeRun = Callable[..., Path]


def test_all_facts_of_a_complete_run_are_read(make_run: MakeRun) -> None:
    facts = read_run(make_run("mine"))
    assert (facts.name, facts.config_name) == ("mine", "mine")
    assert facts.finished
    assert facts.problems == []
    assert facts.config["model"]["n_layer"] == 2
    assert [record["step"] for record in facts.curves.train] == list(range(1, 61))
    assert [record["step"] for record in facts.curves.valid] == [20, 40, 60]
    assert [sample["step"] for sample in facts.samples] == [30, 60]
    assert set(facts.evaluation) == {"valid", "test"}
    assert facts.environment["world_size"] == 1
    assert facts.shards["splits"]["train"]["tokens"] == 9000
    assert facts.last["step"] == 60
    assert facts.typical("tokens_per_second") == 512.0


def test_parameters_are_counted_from_the_config(make_run: MakeRun) -> None:
    """Embedding; 2 blocks of width 64: q, k, v, o, SwiGLU of width 192, two norms, two head norms; a final norm."""
    block = 4 * 64 * 64 + 3 * 64 * 192 + 2 * 64 + 2 * 32
    assert read_run(make_run()).parameters == 500 * 64 + 2 * block + 64


def test_figures_come_from_the_finished_model_or_the_last_validation(make_run: MakeRun) -> None:
    done, training = read_run(make_run("done")), read_run(make_run("training", complete=False))
    assert done.figure("valid", "bits_per_byte") == 1.5
    assert done.figure("test", "bits_per_byte") == 1.25
    assert training.figure("valid", "loss_per_token") == pytest.approx(2.1 + 6.0 * math.exp(-3))
    assert training.figure("test", "bits_per_byte") is None


def test_a_run_that_has_just_started_is_empty_but_valid(make_run: MakeRun) -> None:
    facts = read_run(make_run(steps=0, complete=False))
    assert not facts.finished
    assert facts.last == {}
    assert facts.typical("mfu") is None
    assert facts.problems == []


def test_unreadable_files_are_named_and_the_rest_is_read(make_run: MakeRun) -> None:
    run = make_run()
    (run / "evaluation.json").write_text("{")
    (run / "environment.json").write_text("[1]")
    (run / "samples.jsonl").write_text("nonsense\n")
    (run / "config.toml").write_text("= broken")
    facts = read_run(run)
    assert len(facts.problems) == 4
    for name in ("evaluation.json", "environment.json", "samples.jsonl", "config.toml"):
        assert any(str(run / name) in problem for problem in facts.problems)
    assert facts.name == "mine"
    assert facts.parameters is None
    assert len(facts.curves.train) == 60


@pytest.mark.parametrize("kind", ["absolute", "from the run"])
def test_shards_in_another_folder_are_found_through_the_config(make_run: MakeRun, tmp_path: Path, kind: str) -> None:
    shards = tmp_path / "prepared"
    pointer = str(shards) if kind == "absolute" else "../../prepared"
    run = make_run(overrides=(f"data.shards={json.dumps(pointer)}",))
    shutil.move(run / "data", shards)
    assert read_run(run).shards["splits"]["train"]["tokens"] == 9000


def test_a_folder_that_is_not_a_run_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UsageError) as error:
            read_run(folder)
        assert "config.toml" in error.value.what
        assert "metrics.jsonl" in error.value.what


@pytest.mark.parametrize("inner", ["final", "checkpoints/step-00000020"])
def test_a_folder_inside_a_run_is_refused_and_the_message_names_the_run(make_run: MakeRun, inner: str) -> None:
    run = make_run()
    folder = run / inner
    folder.mkdir(parents=True, exist_ok=True)
    if inner != "final":
        shutil.copy(run / "config.toml", folder)
        (folder / "state.json").write_text("{}")
    with pytest.raises(UsageError) as error:
        read_run(folder)
    assert error.value.fix == f"name the run folder: {run}"


def test_the_initial_model_of_a_run_is_read(make_run: MakeRun) -> None:
    """From environment.json, or from the config of an older run, whose environment.json lacks it."""
    assert read_run(make_run("new")).beginning == "trained from scratch"
    older = make_run("older", overrides=("train.init_from=runs/base",))
    assert read_run(older).beginning == "trained from the weights of the model folder base,"
    write_json(older / "environment.json", to_stored((Base("base", "run", "step 20"),)))
    facts = read_run(older)
    assert facts.beginning == "trained from the weights of the run base (step 20),"
    assert facts.environment == {"starts_from": "the run base (step 20)"}
    assert "trained from the weights of the run base (step 20), on 15.4K tokens" in write_report(older).read_text()
