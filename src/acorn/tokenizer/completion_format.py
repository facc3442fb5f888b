"""How a prompt and its completion become token ids, and which ids are trained."""

from __future__ import annotations

from acorn.tokenizer.chat_format import Encoded
from acorn.tokenizer.continuation import encode_continuation
from acorn.tokenizer.tokenizer import Tokenizer


class CompletionFormat:
    """The document separator, the prompt, the completion, the document separator. The last two are trained.

    Prompt and completion are encoded apart, because a model that generates meets the prompt's own tokens and then adds
    others: a token that crosses the boundary could never be generated. A model of others whose prompts begin with
    another token, or with none, keeps that.

    Attributes:
        end_ids: ids that end a completion.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.end_ids = (tokenizer.separator_id,)

    def encode(self, prompt: str, completion: str) -> Encoded:
        """The ids of an example.

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
        """The ids of a prompt that is to be completed.

        They are those of `Tokenizer.encode_prompt`, but the names of control tokens in it are ordinary text.

        Raises:
            InputError: the text is not valid Unicode, or cannot be encoded.
        """
        (ids,) = self.tokenizer.encode_documents(prompt)
        # Generation begins an empty prompt with the separator, where a tokenizer has nothing to begin it with.
        return [*self.tokenizer.prompt_start, *ids] or [self.tokenizer.separator_id]
