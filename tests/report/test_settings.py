from __future__ import annotations

from acorn.report.settings import setting_name, spelled_out


def test_zero_and_auto_are_what_they_stand_for() -> None:
    """Width 128 is two heads of 64; 8/3 x 128 is 342, and 384 the next multiple of 64."""
    config = {
        "model": {"n_embd": 128, "n_head": 0, "n_inner": 0, "tied": "auto"},
        "optimizer": {"name": "muon", "lr": 0.0},
        "novel": {"key": 1},
    }
    assert spelled_out(config) == {
        "model.n_embd": 128,
        "model.n_head": 2,
        "model.n_inner": 384,
        "model.tied": True,
        "optimizer.name": "muon",
        "optimizer.lr": 0.02,
        "novel.key": 1,
    }


def test_sections_of_another_version_stay_as_they_are() -> None:
    assert spelled_out({"model": {"n_head": 0, "novel": 1}}) == {"model.n_head": 0, "model.novel": 1}


def test_a_key_breaks_at_its_dots_and_underscores_alone() -> None:
    assert setting_name("train.batch_size") == "<code>train.<wbr>batch_<wbr>size</code>"
