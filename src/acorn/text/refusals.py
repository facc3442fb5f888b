"""Messages about rows that could not become examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from acorn.counting import counted
from acorn.errors import InputError
from acorn.text.examples import Refusal
from acorn.text.reading import MAX_NAMES

_MOST_NOTED = 3  # reasons that a note names
_SKIP_HINT = "correct them, or set data.errors=skip to leave such rows out and count them"


def rows_refused(where: str, refused: Sequence[Refusal], rows: int) -> InputError:
    """The error for refused rows, if `data.errors` does not skip them.

    Args:
        where: the side and its sources.
        refused: at least one.
        rows: number of all rows, the refused included.
    """
    if len(refused) == 1:
        return InputError(refused[0].reason, where=refused[0].where, fix=_SKIP_HINT.replace("them", "it"))
    lines = "\n".join(f"  - {reason}" for reason in reasons_of(refused, MAX_NAMES))
    return InputError(
        f"{len(refused):,} of {counted(rows, 'row')} cannot be used:\n{lines}",
        where=where,
        fix=_SKIP_HINT if len(refused) < rows else "correct them, or name other rows",
    )


def reasons_of(refused: Sequence[Refusal], most: int) -> list[str]:
    """Each reason with the place of its first row, the most frequent first; at most `most` of them, and how many
    others."""
    first: dict[str, str] = {}
    for refusal in refused:
        first.setdefault(refusal.reason, refusal.where)
    reasons = Counter(refusal.reason for refusal in refused).most_common()
    told = []
    for reason, n in reasons[:most]:
        more = f" and {counted(n - 1, 'other row')}" if n > 1 else ""
        told.append(f"{first[reason]}{more}: {reason}")
    rest = sum(n for _, n in reasons[most:])
    return [*told, f"and {counted(rest, 'row')} for other reasons"] if rest else told


def left_out(refused: Sequence[Refusal], rows: int) -> str:
    """A sentence on rows that `data.errors = "skip"` leaves out.

    Args:
        refused: at least one.
        rows: all of them, the refused included.
    """
    told = "; ".join(reason.rstrip(".") for reason in reasons_of(refused, _MOST_NOTED))
    return f"{len(refused):,} of {counted(rows, 'row')} left out: {told}."


def no_example(where: str, refused: Sequence[Refusal]) -> InputError:
    """The error if no row became an example; `refused` has all of the rows, or is empty if there were none."""
    reasons = Counter(refusal.reason for refusal in refused)
    told = "; ".join(f"{reason.rstrip('.')}: {counted(n, 'row')}" for reason, n in reasons.most_common(3))
    was = "the only row was" if len(refused) == 1 else f"all {len(refused):,} rows were"
    return InputError(
        f"There is no example{f': {was} refused ({told})' if told else ''}.",
        where=where,
        fix="correct the rows, or give others" if told else "give files that hold rows",
    )
