"""The report's list of where a run happened: environment.json, with labels, and values as a person reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from acorn.report.formats import figure
from acorn.report.labels import ENVIRONMENT
from acorn.report.markup import absent, fact_list

UNCOMMITTED = " (with uncommitted changes)"


def environment_section(environment: Mapping[str, Any]) -> str:
    """Command line, machine, versions. Fields without a value are left out; those of another version come last."""
    known = {key: environment[key] for key in (*ENVIRONMENT, *environment) if environment.get(key) is not None}
    if not known:
        return absent("There is no environment.json in the run folder.")
    return fact_list({key: WRITTEN.get(key, _as_it_is)(value) for key, value in known.items()}, ENVIRONMENT)


def _as_it_is(value: Any) -> Any:
    return value


def _commit(value: Any) -> Any:
    """A commit, and whether the checkout had changes, which environment.json tells by a `+` at its end."""
    return value.removesuffix("+") + (UNCOMMITTED if value.endswith("+") else "") if isinstance(value, str) else value


def _peak(value: Any) -> Any:
    """`0.284 TFLOP/s (matmuls of 2,048 x 2,048 in bf16 on 2 threads)`."""
    flops = value.get("flops_per_second") if isinstance(value, Mapping) else None
    if not isinstance(flops, int | float):
        return value
    return f"{flops / 1e12:.3g} TFLOP/s" + (f" ({value['of']})" if value.get("of") else "")


def _versions(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return ", ".join(f"{name} {version}" for name, version in value.items())


def _by_process(value: Any) -> Any:
    """The count of the only process, or one a process."""
    if not isinstance(value, Mapping):
        return value
    if len(value) == 1:
        return next(iter(value.values()))
    return [f"process {rank}: {figure(count)}" for rank, count in value.items()]


WRITTEN: dict[str, Callable[[Any], Any]] = {
    "acorn_commit": _commit,
    "git_revision": _commit,
    "peak": _peak,
    "versions": _versions,
    "windows_per_rank": _by_process,
}
"""How fields are written whose JSON is not what a person reads."""
