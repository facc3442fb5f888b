"""How a text that gets a label becomes token ids."""

from __future__ import annotations

from collections.abc import Sequence

import tokenizers

from acorn.tokenizer.tokenizer import Tokenizer, encode_all


class LabelText:
    """The document separator (for models of others: what their prompts begin with) and the text, nothing after it.

    The ids are those of transformers for the exported classifier, whose tokenizer_config.json sets
    `split_special_tokens`: the names of special tokens, the unknown token's too, are ordinary text. That differs from
    how documents are encoded, where the unknown token is matched.

    Args:
        tokenizer: of the model.
        as_it_is: a text begins as the tokenizer has it, for a label head that was trained so.

    Attributes:
        tokenizer: the one to export: as given, but it begins each text with the separator even where the given one
            puts nothing there (GPT-2's own does not), unless it is used as it is.
    """

    def __init__(self, tokenizer: Tokenizer, *, as_it_is: bool = False) -> None:
        self.tokenizer = Tokenizer.from_json(tokenizer.to_json(), as_it_is=as_it_is)
        self._backend = tokenizers.Tokenizer.from_str(self.tokenizer.to_json())
        self._backend.encode_special_tokens = True  # that means: as ordinary text

    def encode(self, texts: str | Sequence[str]) -> list[list[int]]:
        """The ids of each text, encoded on all cores. A single string counts as a list of one.

        A text that would be without any token, an empty one, is the separator.

        Raises:
            InputError: a text is not valid Unicode, or the library cannot encode it.
        """
        encoded = encode_all(self._backend, texts, add_special_tokens=True)
        return [ids or [self.tokenizer.separator_id] for ids in encoded]
