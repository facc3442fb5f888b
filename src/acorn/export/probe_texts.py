"""The texts for comparing two tokenizers: held-out lines, and strings that are hard for tokenizers."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from acorn.config import DataConfig
from acorn.config_files import load_run_config
from acorn.errors import AcornError
from acorn.evaluate.run_data import shards_of
from acorn.origin import HUB_PREFIX
from acorn.run_folder import run_of
from acorn.text.sources import BUNDLED
from acorn.text.splits import TextSplits
from acorn.tokenizer.tokenizer import Tokenizer

LINES = 2_000
LONGEST_LINE = 1_000
"""Compared part of a line, in characters."""

SHARD_TOKENS = 1 << 18
"""Decoded part of a split, in tokens; more than enough for LINES."""

ADVERSARIAL = 200


def held_out_lines(folder: Path, tokenizer: Tokenizer) -> tuple[list[str], dict[str, int]]:
    """LINES different lines for the model in `folder`, and the number of lines from each source. No network is used.

    Sources, in this order until there are enough lines: the run's held-out text, its held-out token shards, the bundled
    WikiText-2.
    """
    places = {
        "the run's held-out text": _text_of_run(folder),
        "the run's held-out tokens": _tokens_of_run(folder, tokenizer),
        "the bundled WikiText-2": _documents(DataConfig(source=(BUNDLED,))),
    }
    lines: dict[str, str] = {}
    for place, texts in places.items():
        try:
            for line in _lines(texts):
                if len(lines) < LINES:
                    lines.setdefault(line, place)
                else:
                    break
        except AcornError:  # missing, changed or damaged; the next source is used
            continue
    origins = list(lines.values())
    return list(lines), {place: origins.count(place) for place in places if place in origins}


def _lines(texts: Iterable[str]) -> Iterator[str]:
    return (line[:LONGEST_LINE] for text in texts for line in text.split("\n") if line.strip())


def _text_of_run(folder: Path) -> Iterator[str]:
    run = run_of(folder)
    if run is None:
        return
    data = load_run_config(run.config).data
    sources = data.source + data.valid_source + data.test_source
    if data.source and not any(source.startswith(HUB_PREFIX) for source in sources):
        yield from _documents(data)


def _documents(data: DataConfig) -> Iterator[str]:
    texts = TextSplits.open(data)
    for split in reversed(texts.names[1:]):  # test, if there is one, then valid
        yield from (document.text for document in texts.documents(split))


def _tokens_of_run(folder: Path, tokenizer: Tokenizer) -> Iterator[str]:
    if run_of(folder) is None:
        return
    shards = shards_of(folder, tokenizer)
    for split in ("test", "valid"):
        if split in shards.splits:
            yield tokenizer.decode(shards.tokens(split)[:SHARD_TOKENS].tolist())


BASES = (
    "",
    " ",
    "  ",
    " " * 57,
    "\t",
    "\n",
    "\r\n",
    "\n\n\n  \n",
    "a\r\nb\rc\n\rd",
    " \t \n\t x",
    "word",
    " word",
    "word ",
    "don't can't WE'LL I'M they've",
    "'s 't 're 've 'm 'll 'd",
    "’s curly ‘quotes’ “and” „these“",
    "snake_case camelCase kebab-case SCREAMING_CASE",
    "...!!!???,,,;;;:::---___",
    "#@$%^&*()[]{}<>|\\/`~+=",
    "##ing ## # ##",
    "▁▁ lower one eighth blocks ▁a",
    "Ġ Ċ ĉ Ā letters that stand for bytes",
    "0 1 12 123 1234 12345678901234567890",
    "3.14159 1,000,000 1e-9 0x1F ½ ² Ⅷ ① ٣ ३ 五",
    "2024-01-31T23:59:59Z +49 (0)30 1234-5678",
    "https://example.org/a?b=c&d=%20#e user@example.org",
    "été naïve Ünïcödé ÅÄÖ ß ẞ ſ ﬁ ﬀ",
    "e\u0301te\u0301 a\u0308\u0323\u0330 \u0301alone",
    "Z\u0351\u036b\u0343a\u0328\u0348l\u0349g\u0347o\u0321",
    "Tiếng Việt có dấu, Cộng hòa xã hội",
    "Ελληνικά ΟΔΟΣ οδός",
    "Привет, мир! ЁЖ ё Ѳ",
    "漢字と仮名交じり文。カタカナ ﾊﾝｶｸ",
    "modifier letters ʰʷˈ ⁿ スーパー 々ゝ",
    "中文没有空格，标点也不同。𠜎𠜱𡿺",
    "한국어 조선말 \u1112\u1161\u11ab\u1100\u1173\u11af",
    "हिन्दी में मात्राएँ क्षत्रिय",
    "ภาษาไทยไม่มีเว้นวรรค",
    "العربية من اليمين إلى اليسار ١٢٣",
    "עברית עִם נִקּוּד and Latin \u200fmixed\u200e \u202eoverride\u202c",
    "🙂 😀😀 ❤️ ☺︎ 👍🏽 👩🏿‍🚀",
    "👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 1️⃣ #️⃣",
    "🫠🪿🫨 ∀∃∈ℝ ∑ √ ≠ → ⇒ █▓▒░ ♞",
    "\u00a0no-break\u2003em\u2009thin\u3000wide\u1680ogham\u2028line\u2029paragraph",
    "\u200bzero\u200bwidth\u200c\u200d\ufeffmark",
    "\u0000nul \u0001\u0002\u0007\u0008\u000b\u000c\u001b[31m\u007f",
    "\u0080\u0085\u009f latin-1 controls",
    "\ue000\uf8ff private \U000f0000\U0010fffd use",
    "\ufffd\ufffe\uffff\U0001ffff no characters",
    "\u0378\u0e3e\U0001f0ff unassigned",
    "\\ud83d\\ude00 &#x1F600; %F0%9F%98%80 \\x00",
    "Ã© â€™ ï»¿ misread UTF-8",
    "a" * 400,
    "ab" * 200,
    "word" * 100,
    "1" * 300,
    "." * 150,
    "!?" * 75,
    "é" * 120,
    "漢" * 120,
    "🙂" * 60,
    "<unk> [UNK] <s> </s> <pad> <mask> [CLS] [SEP]",
    "<|endoftext|>",
    "<|EOS|>",
    "<|im_start|>user<|im_end|>",
    "< | endoftext | > <|endoftext <|end|of|text|>",
    "def f(x):\n    return x ** 2  # twice\n\n\tif y:\n\t\tpass\n",
    '{"a": [1, 2.5e3, null], "b\\n": "\\"c\\""}',
    "<p class='x'>&amp;&nbsp;</p><!-- -->",
    " @-@ @,@ @.@ = = Title = = \n",
)


def adversarial_strings(tokenizer: Tokenizer) -> list[str]:
    """ADVERSARIAL strings, always equal for one vocabulary: BASES, special tokens, and random mixtures of both."""
    controls = [tokenizer.separator_id, tokenizer.pad_id, *tokenizer.reserved_ids[:16]]
    specials = [tokenizer.piece(id_) or "" for id_ in controls]
    strings = dict.fromkeys(BASES)
    for special in specials:
        strings |= dict.fromkeys((special, f"a{special}b", f"{special} {special}\n"))
    dice = random.Random(0)
    parts = [*BASES, *specials]
    characters = sorted(set("".join(BASES)))
    while len(strings) < ADVERSARIAL:
        if dice.random() < 0.5:
            strings["".join(dice.choices(characters, k=dice.randint(1, 40)))] = None
        else:
            strings["".join(part[: dice.randint(1, 12)] for part in dice.choices(parts, k=dice.randint(2, 5)))] = None
    return list(islice(strings, ADVERSARIAL))
