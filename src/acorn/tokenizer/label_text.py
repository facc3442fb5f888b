"""Encodes texts for models that give labels or values."""

from __future__ import annotations

from collections.abc import Sequence

import tokenizers

from acorn.tokenizer.tokenizer import Tokenizer, encode_all


class LabelText:
    """The ids are the document separator (for models of others: what their prompts begin with) and the text.

    The ids are those of transformers for the exported classifier, whose tokenizer_config.json sets
    `split_special_tokens`: names of special tokens, including the unknown token, are ordinary text. In documents the
    name of the unknown token is matched.

    Args:
        tokenizer: of the model.
        as_it_is: texts begin as in the given tokenizer, because the label head was trained that way.

    Attributes:
        tokenizer: the one to export. It puts the separator before each text, even if the given one (such as GPT-2's)
            puts nothing there, unless `as_it_is`.
    """

    def __init__(self, tokenizer: Tokenizer, *, as_it_is: bool = False) -> None:
        self.tokenizer = Tokenizer.from_json(tokenizer.to_json(), as_it_is=as_it_is)
        self._backend = tokenizers.Tokenizer.from_str(self.tokenizer.to_json())
        self._backend.encode_special_tokens = True  # that means: as ordinary text

    def encode(self, texts: str | Sequence[str]) -> list[list[int]]:
        """The ids of each text, encoded on all cores. A single string counts as a list of one.

        A text without any token, such as an empty one, becomes the separator.

        Raises:
            InputError: a text is not valid Unicode, or the library cannot encode it.
        """
        encoded = encode_all(self._backend, texts, add_special_tokens=True)
        return [ids or [self.tokenizer.separator_id] for ids in encoded]
