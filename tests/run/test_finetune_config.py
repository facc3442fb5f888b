"""The config of a finetuning run."""

from __future__ import annotations

import pytest

from acorn.errors import UsageError
from acorn.run.finetune_config import DEFAULTS, check_finetuning, check_frozen, default_rate, finetune_config


def test_what_the_command_line_names_stands_in_the_config() -> None:
    config = finetune_config("runs/my", ["a.csv"], valid=["b.csv"], task="classify", overrides=["train.batch_size=4"])
    assert (config.train.init_from, config.data.source, config.data.valid_source) == ("runs/my", ("a.csv",), ("b.csv",))
    assert (config.finetune.task, config.finetune.epochs) == ("classify", DEFAULTS["finetune"]["epochs"])
    assert config.train.batch_size == 4
    assert finetune_config("m", ["a.csv"], overrides=["train.minutes=3"]).finetune.epochs == 0


@pytest.mark.parametrize(
    ("width", "rank", "rate"), [(128, 0, 0.003), (128, 8, 0.01), (768, 0, 0.0005), (768, 8, 0.0017), (16, 0, 0.01)]
)
def test_the_default_rate_falls_with_the_width(width: int, rank: int, rate: float) -> None:
    config = finetune_config("m", ["a.csv"], lora=rank, overrides=[f"model.n_embd={width}"])
    assert config.optimizer.lr == 0  # chosen once the base is known
    assert default_rate(config) == rate


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
