from __future__ import annotations

from acorn.report.settings import setting_name, spelled_out


def test_zero_and_auto_are_replaced_by_their_values() -> None:
    """A width of 128 has two heads of width 64. 8/3 x 128 is 342; the next multiple of 64 is 384."""
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


def test_unknown_sections_are_unchanged() -> None:
    assert spelled_out({"model": {"n_head": 0, "novel": 1}}) == {"model.n_head": 0, "model.novel": 1}


def test_a_key_breaks_only_at_dots_and_underscores() -> None:
    assert setting_name("train.batch_size") == "<code>train.<wbr>batch_<wbr>size</code>"
