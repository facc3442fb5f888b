"""Makes conversations for `chat` from the plain text of plays: one character speaks, the assistant answers as another.

    python examples/finetuning/shakespeare.py my-plays.txt --out shakespeare.jsonl

The text is yours: plays in which each speech begins with a line `NAME:` and ends with an empty line, as in the file
that is widely known as "tiny Shakespeare". A conversation is a stretch in which two characters alternate. Its system
message names who answers: with a model that was trained on these rows, `--system ROMEO` asks for Romeo. Each speech is
an answer once at most. Only the standard library is used.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

SPEECH = re.compile(r"^([A-Z][A-Za-z' ]*):\n(.+)$", re.S)

Speech = tuple[str, str]  # the speaker and what is said


def speeches(text: str, longest: int) -> Iterator[Speech | None]:
    """The speeches in order; None in place of one that is longer than `longest` characters or has no speaker."""
    for block in re.split(r"\n{2,}", text.strip()):
        found = SPEECH.match(block.strip())
        said = " ".join(found[2].split()) if found else ""
        yield (found[1].upper(), said) if found and len(said) <= longest else None


def conversations(listed: Iterator[Speech | None], most_turns: int) -> Iterator[list[Speech]]:
    """Stretches of an even number of speeches in which two speakers alternate."""
    turns: list[Speech] = []
    for speech in listed:
        continues = (
            speech is not None
            and len(turns) < most_turns
            and (len(turns) < 2 or speech[0] == turns[-2][0])
            and (not turns or speech[0] != turns[-1][0])
        )
        if not continues:
            yield turns[: len(turns) // 2 * 2]
            # The last speech was no answer, or it was one and may be a question to whoever speaks now.
            turns = [turns[-1]] if turns and speech and turns[-1][0] != speech[0] else []
        if speech is not None:
            turns.append(speech)
    yield turns[: len(turns) // 2 * 2]


def row(turns: list[Speech]) -> dict[str, list[dict[str, str]]]:
    """The conversation in the shape that `acorn finetune` reads."""
    roles = ("user", "assistant")
    said = [{"role": roles[number % 2], "content": words} for number, (_, words) in enumerate(turns)]
    return {"messages": [{"role": "system", "content": turns[1][0]}, *said]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="a text file of plays")
    parser.add_argument("--out", type=Path, default=Path("shakespeare.jsonl"), help="the file of rows")
    parser.add_argument("--longest", type=int, default=200, help="leave out speeches of more characters (200)")
    parser.add_argument("--turns", type=int, default=6, help="most speeches of a conversation (6)")
    options = parser.parse_args()
    listed = list(speeches(options.text.read_text("utf-8"), options.longest))
    made = [turns for turns in conversations(iter(listed), options.turns) if turns]
    text = "".join(json.dumps(row(turns), ensure_ascii=False) + "\n" for turns in made)
    options.out.write_text(text, "utf-8")
    answers, left_out = sum(len(turns) // 2 for turns in made), sum(speech is None for speech in listed)
    print(f"{options.out}: {len(made):,} conversations with {answers:,} answers; {left_out:,} blocks were left out")


if __name__ == "__main__":
    main()
