from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from acorn.tokenizer import wordpiece

# Blocks whose characters every Unicode version in use agrees on: Latin, Greek, Cyrillic, punctuation, controls.
LONG_ASSIGNED = st.characters(max_codepoint=0x052F, exclude_categories=["Cn", "Cs"]) | st.sampled_from(
    "\u200b\u2028\u2029\u202f\u3000\ufeff\ue000日本語가"
)


def by_the_definition(text: str) -> str:
    """The normalizer of the original, written with Python's Unicode tables instead of regular expressions."""
    kept = "".join(c for c in text if c in "\n\t\r" or unicodedata.category(c)[0] != "C")
    spaced = "".join(" " if c.isspace() else c for c in kept)
    return "".join(c for c in unicodedata.normalize("NFD", spaced) if unicodedata.category(c) != "Mn")


@given(st.text(LONG_ASSIGNED))
def test_the_normalizer_follows_its_definition(text: str) -> None:
    assert wordpiece.reader().normalizer.normalize_str(text) == by_the_definition(text)


def test_the_patterns_are_regular_expressions() -> None:
    """As plain strings they would match nothing, and control characters and tabs would remain."""
    assert wordpiece.reader().normalizer.normalize_str("a\x00b\tc\u00a0d\u200be") == "ab c de"


def test_accents_and_vowel_signs_are_lost() -> None:
    normalize = wordpiece.reader().normalizer.normalize_str
    assert normalize("Việt") == "Viet"
    assert normalize("हिन्दी में") != "हिन्दी में"


@given(st.lists(st.text(LONG_ASSIGNED), max_size=5))
def test_alphabet_is_every_character_of_every_word(texts: list[str]) -> None:
    """Characters one by one must give the same result as whole texts."""
    backend = wordpiece.reader()
    words = [
        word
        for text in texts
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))
    ]
    assert wordpiece.alphabet(texts) == sorted(set("".join(words)))
