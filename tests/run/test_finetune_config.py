"""The config of a finetuning run."""

from __future__ import annotations

import pytest

from acorn.errors import UsageError
from acorn.run.finetune_config import DEFAULTS, LORA_RATE, check_finetuning, check_frozen, finetune_config


def test_what_the_command_line_names_stands_in_the_config() -> None:
    config = finetune_config("runs/my", ["a.csv"], valid=["b.csv"], task="classify", overrides=["train.batch_size=4"])
    assert (config.train.init_from, config.data.source, config.data.valid_source) == ("runs/my", ("a.csv",), ("b.csv",))
    assert (config.finetune.task, config.finetune.epochs) == ("classify", DEFAULTS["finetune"]["epochs"])
    assert config.train.batch_size == 4
    assert finetune_config("m", ["a.csv"], overrides=["train.minutes=3"]).finetune.epochs == 0


def test_adapters_have_a_rate_of_their_own() -> None:
    assert finetune_config("m", ["a.csv"], lora=4).optimizer.lr == LORA_RATE
    assert finetune_config("m", ["a.csv"], overrides=["lora.rank=4"]).optimizer.lr == LORA_RATE
    assert finetune_config("m", ["a.csv"], lora=4, overrides=["optimizer.lr=0.1"]).optimizer.lr == 0.1
    assert finetune_config("m", ["a.csv"]).optimizer.lr == DEFAULTS["optimizer"]["lr"]


@pytest.mark.parametrize("setting", ["finetune.epochs=0", "data.source=[]"])
def test_what_cannot_be_run_is_refused(setting: str) -> None:
    check_finetuning(finetune_config("m", ["a.csv"]))
    with pytest.raises(UsageError):
        check_finetuning(finetune_config("m", ["a.csv"], overrides=[setting]))


@pytest.mark.parametrize("tied", [True, False])
def test_something_is_left_to_train(tied: bool) -> None:
    network = ["model.n_layer=2", f"model.tied={tied}".lower()]
    for_frozen = {n: finetune_config("m", ["a.csv"], overrides=[*network, f"finetune.freeze={n}"]) for n in (1, 2, 3)}
    check_frozen(for_frozen[1], has_label_head=False)
    check_frozen(for_frozen[2], has_label_head=True)
    with pytest.raises(UsageError, match="2 blocks, so 3"):
        check_frozen(for_frozen[3], has_label_head=True)
    if tied:
        with pytest.raises(UsageError, match="Nothing would be trained"):
            check_frozen(for_frozen[2], has_label_head=False)
    else:
        check_frozen(for_frozen[2], has_label_head=False)
