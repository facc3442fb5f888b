"""What ends a tiny run, and takes longer than its training, is done once: pictures, and the baseline of TF-IDF.

tests/report and tests/evaluate test these themselves. Here each test file draws its first picture of a kind, and later
runs get a copy; a baseline is computed once for the same rows, so its figures are those that the run would compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from acorn.evaluate import baselines
from acorn.files import write_file
from acorn.run import finetuned_ending, finish
from acorn.run_folder import RunFolder


@pytest.fixture(scope="module", autouse=True)
def quick_endings() -> Iterator[None]:
    """For all runs of a test file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "write_loss_picture", _written_once(finish.write_loss_picture, _loss_picture))
        patch.setattr(finetuned_ending, "confusion_png", _written_once(finetuned_ending.confusion_png, _last))
        patch.setattr(baselines, "_penalty", _chosen_once(baselines._penalty))
        yield


def _written_once(write: Callable[..., Any], path_of: Callable[..., Path]) -> Callable[..., Any]:
    """`write`, which writes to the path that `path_of` finds in its arguments."""
    pictures: list[bytes] = []

    def write_or_copy(*arguments: Any) -> None:
        if pictures:
            write_file(path_of(*arguments), pictures[0])
            return
        write(*arguments)
        pictures.append(path_of(*arguments).read_bytes())

    return write_or_copy


def _chosen_once(choose: Callable[..., float]) -> Callable[..., float]:
    """The penalty that `choose` finds by cross-validation, remembered by rows, answers and weights."""
    chosen: dict[tuple[Any, ...], float] = {}

    def find(rows: Any, answers: Any, weights: str | None) -> float:
        values = (rows.shape, rows.data.tobytes(), rows.indices.tobytes(), rows.indptr.tobytes())
        key = (*values, tuple(answers), weights)
        if key not in chosen:
            chosen[key] = choose(rows, answers, weights)
        return chosen[key]

    return find


def _loss_picture(run: Path) -> Path:
    return RunFolder(run).loss_picture


def _last(*arguments: Any) -> Path:
    return Path(arguments[-1])
