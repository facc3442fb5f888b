"""Pickles are recognized by their names and never opened: reading one runs whatever code its writer put in."""

from __future__ import annotations

from pathlib import Path

from acorn.errors import AcornError, InputError

PICKLE_ENDINGS = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".bin")
"""Endings of files that are pickles or may contain one. acorn's own `.bin` files are in folders of token shards."""


def refuse_pickle(
    path: Path,
    where: str,
    *,
    kind: type[AcornError] = InputError,
    fix: str = "name a file of another kind; convert this one where you trust its source",
) -> None:
    """Refuses a file that is a pickle by its name, before it is opened. Upper and lower case are one.

    Args:
        path: what the user named.
        where: the option, config key or path for the message.
        kind: the kind of error that fits the place.
        fix: what belongs there instead.

    Raises:
        InputError: (or `kind`) it has one of PICKLE_ENDINGS.
    """
    if path.suffix.lower() in PICKLE_ENDINGS:
        raise kind(
            f"{path.name} is a pickle by its name, which could run any code when opened; it was not read.",
            where=where,
            fix=fix,
        )
