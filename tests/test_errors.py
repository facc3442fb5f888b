"""The error family: messages, exit codes, and the way through a process boundary."""

from __future__ import annotations

import copy
import pickle

import pytest

from acorn import errors

CODES = {
    errors.UsageError: 2,
    errors.InputError: 3,
    errors.DamageError: 4,
    errors.DivergedError: 5,
    errors.ResourceError: 6,
}


@pytest.mark.parametrize("kind", CODES)
def test_message_says_what_where_and_how_to_mend(kind: type[errors.AcornError]) -> None:
    error = kind("It broke.", where="file.txt, line 3", mend="write it anew")
    assert str(error) == "It broke.\n  where:   file.txt, line 3\n  to mend: write it anew"
    assert error.exit_code == CODES[kind]
    assert str(kind("It broke.")) == "It broke."


def test_missing_package_names_the_extra() -> None:
    error = errors.MissingPackageError("wandb", "wandb", purpose="The tracker")
    assert error.exit_code == 7
    assert "pip install 'acorn-lm[wandb]'" in str(error)


@pytest.mark.parametrize(
    "error",
    [
        errors.InputError("a", where="b", mend="c"),
        errors.MissingPackageError("p", "e", purpose="x"),
        errors.StoppedError(15, "stopped"),
    ],
)
def test_errors_survive_being_copied_between_processes(error: errors.AcornError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert again.exit_code == error.exit_code
