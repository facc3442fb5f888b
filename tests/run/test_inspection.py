"""What is shown of examples is what a run trains on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_models import LINES, model_for

from acorn.checkpoint.model_folder import write_model_folder
from acorn.config import Config
from acorn.errors import InputError, UsageError
from acorn.run import finetune as finetuning
from acorn.run.finetune import finetune
from acorn.run.finetune_config import finetune_config
from acorn.run.inspection import Inspection, inspect_examples
from acorn.tokenizer.chat_format import ChatFormat
from acorn.tokenizer.training import train

WORDS = ["oak", "squirrel", "winter", "path", "café"]


def chat(number: int) -> dict:
    said = [("system", "Be brief.")] * (number % 2) + [("user", f"say {WORDS[number % 5]} {number}")]
    said += [("assistant", f"{WORDS[number % 5]}!"), ("user", "again"), ("assistant", "no")][: 1 + number % 4]
    return {"messages": [{"role": role, "content": content} for role, content in said]}


ROWS = {
    "chat": [chat(number) for number in range(24)],
    "complete": [{"prompt": f"say {WORDS[n % 5]} {n}: ", "completion": WORDS[n % 5]} for n in range(24)],
    "classify": [{"text": f"the {WORDS[n % 5]} {n}", "label": WORDS[n % 2]} for n in range(24)],
    "regress": [{"text": f"the {WORDS[n % 5]} {n}", "label": n + 0.5} for n in range(24)],
    "tag": [{"tokens": ["the", WORDS[n % 5], str(n)], "tags": ["O", f"B-{n % 2}", "O"]} for n in range(24)],
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = train(lambda: LINES, "bpe", 320)
    folder = tmp_path_factory.mktemp("models") / "base"
    model = model_for(tokenizer, "modern", n_layer=1, n_embd=32)
    write_model_folder(folder, model, tokenizer, "card")
    return folder


@pytest.fixture
def config(base: Path, tmp_path: Path):
    def build(rows: list, *overrides: str, **options) -> Config:
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
        more = ["train.steps=1", "train.precision=fp32", "train.threads=1", *overrides]
        return finetune_config(str(base), [str(file)], overrides=more, **options)

    return build


class Begun(Exception):
    """A run got as far as its data."""


CUT = {
    "chat": ("finetune.overlong=cut_prompt", "model.block_size=43", "finetune.loss_on=all"),
    "complete": ("finetune.overlong=cut_prompt", "model.block_size=18", "finetune.loss_on=all"),
    "classify": ("finetune.overlong=cut", "model.block_size=5"),
    "regress": ("finetune.overlong=cut", "model.block_size=5"),
}
"""Settings under which some examples of each task are cut."""


@pytest.mark.parametrize("task", ROWS)
@pytest.mark.parametrize("is_cut", [False, True])
def test_ids_and_mask_are_those_that_a_run_trains_on(
    config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, is_cut: bool
) -> None:
    if is_cut and task not in CUT:
        pytest.skip("a sentence is never cut: each of its words gets a tag")
    trained: dict = {}

    class Spied:
        def __init__(self, task, sides, config, replay=None) -> None:
            trained.update(sides)
            raise Begun

    monkeypatch.setattr(finetuning, "Examples", Spied)
    asked = config(ROWS[task], *(CUT[task] if is_cut else ()))
    with pytest.raises(Begun):
        finetune(asked, tmp_path / "run")
    found = inspect_examples(asked)
    assert (found.task, found.refused, found.fault) == (task, [], None)
    for name in ("train", "valid"):
        shown = [example.tokens for example in found.examples if example.side == name]
        assert len(shown) == len(trained[name].tokens)
        order = {str(example): number for number, example in enumerate(trained[name].examples)}
        own = [example for example in found.examples if example.side == name]
        for example, tokens in zip(own, shown, strict=True):
            run = trained[name].tokens[order[str(example.example)]]
            if run.last is None:
                assert tokens.ids == run.ids.tolist()
                assert np.flatnonzero(tokens.trained).tolist() == run.rows.tolist()
                assert run.rows[-1] == len(tokens.ids) - 1
                assert len(run.rows) == (3 if task == "tag" else 1)
            else:
                assert tokens.ids[:-1] == run.ids.tolist()
                assert (np.flatnonzero(tokens.trained) - 1).tolist() == run.rows.tolist()
                assert [tokens.ids[row + 1] for row in run.rows] == run.values.tolist()
    assert (sum(side.cut for side in found.sides.values()) > 0) == is_cut


def test_conversations_are_shown_whole_and_in_the_order_of_reading(config, base: Path) -> None:
    """Also what follows the last answer, which a model never reads."""
    found = inspect_examples(config(ROWS["chat"]))
    format = ChatFormat(found.tokenizer)
    assert [example.tokens for example in found.examples] == [
        format.encode(example.example.messages) for example in found.examples
    ]
    assert [example.example.where.rpartition(" ")[2] for example in found.examples] == [
        str(line) for line in range(1, 25)
    ]
    assert {example.side for example in found.examples} == {"train", "valid"}


def test_refused_rows_are_collected(config) -> None:
    long = {"prompt": "oak " * 90, "completion": "x"}
    bad = ["no json", {"prompt": "a", "completion": ""}, long, {"prompt": "a"}]
    found = inspect_examples(config([*ROWS["complete"], *bad]))
    places = [refusal.where.rpartition("rows.jsonl, ")[2] for refusal in found.refused]
    assert sorted(places) == ["line 25", "line 26", "line 27", "line 28"]
    assert len(found.examples) == 24
    assert max(found.lengths) > found.context
    assert sum(side.refused for side in found.sides.values()) == 1
    assert found.fault is None
    dropped = inspect_examples(config([*ROWS["complete"], long], "finetune.overlong=drop"))
    assert (dropped.refused, sum(side.dropped for side in dropped.sides.values())) == ([], 1)


@pytest.mark.parametrize("rows", [["no json", "nor this"], [{"prompt": "a", "completion": ""}]])
def test_rows_of_which_all_are_refused(config, rows: list) -> None:
    found = inspect_examples(config(rows))
    assert len(found.refused) == len(rows)
    assert isinstance(found.fault, InputError)
    assert not found.examples


def test_what_would_end_a_run_is_kept_beside_the_examples(config) -> None:
    """A single row cannot be split; labels that are all equal teach nothing."""
    alone = inspect_examples(config(ROWS["complete"][:1]))
    assert (len(alone.examples), "too few examples" in alone.fault.what) == (1, True)
    equal = inspect_examples(config([{"text": f"oak {n}", "label": "a"} for n in range(5)]))
    assert (len(equal.examples), "the same label" in equal.fault.what) == (5, True)
    nothing = inspect_examples(config(ROWS["complete"], "finetune.overlong=drop", "model.block_size=2"))
    assert "fits the context" in nothing.fault.what


def test_labels_and_values_are_counted(config) -> None:
    found: Inspection = inspect_examples(config(ROWS["classify"]))
    total = found.label_counts("train") + found.label_counts("valid")
    assert (total, list(found.labels)) == ({"oak": 12, "squirrel": 12}, ["oak", "squirrel"])
    values = inspect_examples(config(ROWS["regress"]))
    assert sorted(values.values("train") + values.values("valid")) == [n + 0.5 for n in range(24)]


def test_tagged_sentences_are_counted_and_long_ones_refused_with_their_place(config) -> None:
    long = {"tokens": ["oak"] * 90, "tags": ["O"] * 90}
    uneven = {"tokens": ["oak", "path"], "tags": ["O"]}
    found = inspect_examples(config([*ROWS["tag"], long, uneven]))
    assert {refusal.where.rpartition(", ")[2]: refusal.reason for refusal in found.refused}.keys() == {
        "line 25",
        "line 26",
    }
    assert found.labels == ("B-0", "B-1", "O")
    total = found.label_counts("train") + found.label_counts("valid")
    assert total == {"O": 48, "B-0": 12, "B-1": 12}  # words


def test_settings_and_rows_that_a_run_refuses_are_refused(config, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.clean"):
        inspect_examples(config(ROWS["chat"], "data.clean=wikitext"))
    with pytest.raises(UsageError, match="no tokens"):
        inspect_examples(config(ROWS["classify"], "finetune.loss_on=all"))
    with pytest.raises(UsageError, match="Several tasks fit"):
        inspect_examples(config([{"prompt": "a", "completion": "b", "text": "a", "label": "b"}]))
    with pytest.raises(InputError):
        inspect_examples(config(ROWS["chat"], f"data.source={tmp_path / 'nowhere.jsonl'}"))
