"""One text to be generated, and what is reported of it while it grows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from acorn.errors import AcornError
from acorn.generate.settings import SamplingSettings

FinishReason = Literal["eos", "stop", "length"]


@dataclass(frozen=True)
class Job:
    """A prompt and how it is to be continued.

    Attributes:
        prompt_ids: at least one; at most the model's context.
        settings: `seed` must be set, unless the choice is greedy.
        index: number of this text among those with the same seed; each has its own random numbers.
        logit_bias: id -> value that is added to its logit.
        frequency_penalty: is subtracted from a token's logit for each time that it was generated.
        presence_penalty: is subtracted from the logit of every token that was generated.
        alternatives: report the log probability of each new token, and of this many most likely ones; None: of none.
        score_prompt: report the same for the tokens of the prompt after the first.
        prompt_only: generate nothing; the text ends after the prompt, because of its length.
    """

    prompt_ids: tuple[int, ...]
    settings: SamplingSettings
    index: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    alternatives: int | None = None
    score_prompt: bool = False
    prompt_only: bool = False


@dataclass(frozen=True)
class TokenScore:
    """How likely the model found a token: natural logarithms, of the model's own distribution before any setting.

    Attributes:
        top: the most likely tokens at this place, the most likely first, with their log probabilities.
    """

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Update:
    """What one turn of the decoding loop added to a text.

    Attributes:
        token: the new token; None: nothing was generated.
        text: text that is now final; it may belong to earlier tokens, and be empty.
        score: of the new token, if asked for.
        prompt_scores: of the prompt's tokens after the first, if asked for; given once.
        cached_tokens: tokens of the prompt that were found in the prefix cache; given with the first update.
        finish_reason: `eos`: the document or answer ended; `stop`: a stop string occurred; `length`: the largest
            number of new tokens was reached. None: the text goes on.
        error: the text ends because of it.
    """

    token: int | None = None
    text: str = ""
    score: TokenScore | None = None
    prompt_scores: tuple[TokenScore, ...] = ()
    cached_tokens: int = 0
    finish_reason: FinishReason | None = None
    error: AcornError | None = None

    @property
    def is_last(self) -> bool:
        return self.finish_reason is not None or self.error is not None
