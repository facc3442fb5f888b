"""Encodes prompts with their completions, and marks the ids that are trained."""

from __future__ import annotations

from acorn.tokenizer.chat_format import Encoded
from acorn.tokenizer.continuation import encode_continuation
from acorn.tokenizer.tokenizer import Tokenizer


class CompletionFormat:
    """The ids are: document separator, prompt, completion, document separator. The last two parts are trained.

    Prompt and completion are encoded separately, because a model that generates is given the tokens of the prompt
    alone: a token that crosses the boundary could never be generated. If the prompts of a model begin with another
    token than the separator, or with none, that is kept.

    Attributes:
        end_ids: ids that end a completion.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.end_ids = (tokenizer.separator_id,)

    def encode(self, prompt: str, completion: str) -> Encoded:
        """Encodes an example.

        Raises:
            InputError: a text is not valid Unicode, or cannot be encoded.
        """
        before = self.encode_prompt(prompt)
        if prompt:
            after, _ = encode_continuation(self.tokenizer, completion, after=prompt)
        else:
            after, _ = self.tokenizer.encode_part(completion)
        ids = [*after, self.tokenizer.separator_id]
        return Encoded([*before, *ids], [*[False] * len(before), *[True] * len(ids)])

    def encode_prompt(self, prompt: str) -> list[int]:
        """Encodes a prompt to be completed.

        The ids are those of `Tokenizer.encode_prompt`, except that names of control tokens are ordinary text.

        Raises:
            InputError: the text is not valid Unicode, or cannot be encoded.
        """
        (ids,) = self.tokenizer.encode_documents(prompt)
        # An empty prompt begins with the separator if the tokenizer puts nothing before prompts.
        return [*self.tokenizer.prompt_start, *ids] or [self.tokenizer.separator_id]
