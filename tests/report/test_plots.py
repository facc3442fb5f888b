from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from acorn.errors import UsageError
from acorn.report.curves import RunCurves
from acorn.report.plots import PAPER, loss_png, write_loss_picture

MakeRun = Callable[..., Path]


def curves(name: str = "mine", valid: bool = True, offset: float = 0.0) -> RunCurves:
    metrics: list[dict[str, Any]] = []
    for step in range(1, 101):
        metrics.append({"step": step, "tokens": 64 * step, "split": "train", "loss": offset + 2 + 5 / step})
    if valid:
        metrics.append({"step": 100, "tokens": 6400, "split": "valid", "loss": 2.5})
    return RunCurves.from_metrics(name, metrics)


def colored(path: Path, colour: str) -> int:
    """Pixels of exactly this color."""
    wanted = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return int(np.isclose(imread(path)[..., :3], wanted, atol=0.01).all(axis=-1).sum())


def test_the_picture_shows_training_and_validation(tmp_path: Path) -> None:
    with_valid, without = tmp_path / "with.png", tmp_path / "without.png"
    loss_png([curves()], with_valid)
    loss_png([curves(valid=False)], without)
    assert imread(with_valid).shape == (750, 1350, 4)
    assert colored(with_valid, "#1f6f8b") > 500
    assert colored(with_valid, "#c4532d") > 20
    assert colored(without, "#c4532d") == 0
    assert colored(with_valid, PAPER) > 0.8 * 750 * 1350


def test_equal_curves_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        loss_png([curves()], tmp_path / name)
    content = (tmp_path / "a.png").read_bytes()
    assert content == (tmp_path / "b.png").read_bytes()
    assert b"matplotlib" not in content.lower()


def test_each_run_has_its_own_color(tmp_path: Path) -> None:
    loss_png([curves("a"), curves("b", valid=False, offset=1.0)], tmp_path / "two.png")
    assert min(colored(tmp_path / "two.png", colour) for colour in ("#1f6f8b", "#c4532d")) > 50


def test_any_name_can_be_rendered(tmp_path: Path) -> None:
    names = ["costs $10_{", "_hidden", "two\nlines \x07", "<b>"]
    loss_png([curves(names[0])], tmp_path / "one.png")
    loss_png([curves(name, offset=number) for number, name in enumerate(names)], tmp_path / "four.png")
    for colour in ("#1f6f8b", "#c4532d", "#5f7d2a", "#7d5ba6"):
        assert colored(tmp_path / "four.png", colour) > 50


def test_a_run_without_any_loss_gets_an_empty_picture(tmp_path: Path) -> None:
    loss_png([RunCurves("mine", [], [])], tmp_path / "loss.png")
    assert imread(tmp_path / "loss.png").shape == (750, 1350, 4)


def test_pyplot_and_its_global_state_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)  # another test may have imported it
    loss_png([curves()], tmp_path / "loss.png")
    assert "matplotlib.pyplot" not in sys.modules


def test_the_axis_names_the_unit_of_the_task(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    from acorn.report import plots

    units: list[str] = []
    monkeypatch.setattr(plots, "loss_png", lambda runs, path, unit: units.append(unit))
    write_loss_picture(make_run("text"))
    write_loss_picture(make_run("tags", overrides=("finetune.task=tag",)))
    assert units == ["nats per token", "nats per tag"]


def test_the_picture_of_a_run_is_in_its_folder(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    assert write_loss_picture(run) == run / "loss.png"
    assert colored(run / "loss.png", "#1f6f8b") > 500
    with pytest.raises(UsageError):
        write_loss_picture(tmp_path)
