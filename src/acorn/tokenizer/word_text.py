"""How a sentence of words, of which each gets a tag, becomes token ids."""

from __future__ import annotations

from collections.abc import Sequence

from acorn.errors import InputError
from acorn.tokenizer.label_text import LabelText
from acorn.tokenizer.tokenizer import encode_with_offsets


class WordText(LabelText):
    """The words joined by single spaces and encoded as one text, as `LabelText` encodes it. So the ids are those of the
    sentence, which anybody can encode; those of `is_split_into_words` in transformers are others.

    A word's tag is read at the last token with a character of that word: a causal model sees nothing after a token, so
    this is the first that has seen the whole word. A token with characters of two words would have two tags, and is
    refused.
    """

    def encode_words(self, sentences: Sequence[Sequence[str]]) -> list[tuple[list[int], list[int]]]:
        """The ids of each sentence, and for each of its words the place of the token that has its tag, ascending.

        Args:
            sentences: of words without white space, none of them empty.

        Raises:
            InputError: a word has no token, or shares one with its neighbor; or a text cannot be encoded.
        """
        encoded = encode_with_offsets(self._backend, [" ".join(words) for words in sentences])
        return [(ids, _last_tokens(words, offsets)) for words, (ids, offsets) in zip(sentences, encoded, strict=True)]


def _last_tokens(words: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """The place of the last token of each word.

    Args:
        offsets: first character of each token in the joined words, and the one after its last.
    """
    spans, begin = [], 0
    for word in words:
        spans.append((begin, begin + len(word)))
        begin += len(word) + 1
    last: list[int | None] = [None] * len(words)
    number = 0
    for place, (start, end) in enumerate(offsets):
        while number < len(words) and spans[number][1] <= start:
            number += 1
        if number == len(words) or end <= spans[number][0]:  # white space, or the separator before the text
            continue
        last[number] = place
        if number + 1 < len(words) and end > spans[number + 1][0]:
            raise InputError(
                f"This tokenizer has one token for a part of two words, {words[number]!r} and {words[number + 1]!r}.",
                where=f"tokens {number + 1} and {number + 2}",
                fix="leave the sentence out, or finetune a model with another tokenizer",
            )
    found = [place for place in last if place is not None]
    if len(found) < len(words):
        number = last.index(None)
        raise InputError(
            f"The word {words[number]!r} has no token in this tokenizer.",
            where=f"token {number + 1}",
            fix="take the word or the sentence out",
        )
    return found
