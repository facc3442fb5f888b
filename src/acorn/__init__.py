"""acorn trains GPT-style language models from scratch on your own text.

The public names come from `acorn.api`; they are imported on first use, so that `import acorn` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acorn.api import (
        AcornError,
        LanguageModel,
        Prediction,
        Run,
        SamplingSettings,
        Tokenizer,
        finetune,
        load,
        pretrain,
    )

__version__ = "0.1.0"
__all__ = [
    "AcornError",
    "LanguageModel",
    "Prediction",
    "Run",
    "SamplingSettings",
    "Tokenizer",
    "finetune",
    "load",
    "pretrain",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from acorn import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
