"""Which side of an automatic split an example is on.

A digest of the input decides: of the text, the prompt, the tokens, or the messages before the last answer. So examples
with the same input are on the same side, whatever the seed and the other examples are. Then inputs are moved until each
label has one in training and, if it has two or more, one in validation. As few as possible are moved, first those whose
digests are nearest to the limit.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass

from acorn.text.digests import digest_limit, digest_of
from acorn.text.examples import Chat, Completion, Example, Labeled, Tagged


def input_digest(example: Example) -> bytes:
    """The 16-byte digest of an example's input, or of the whole example if its input is empty."""
    if isinstance(example, Labeled):
        return digest_of(_utf8(example.text))
    if isinstance(example, Completion):
        return digest_of(_utf8(example.prompt or example.completion))
    if isinstance(example, Chat):
        last = max(index for index, message in enumerate(example.messages) if message.role == "assistant")
        before = example.messages[:last]
        asked = before if any(message.role == "user" for message in before) else example.messages
        return digest_of(_utf8(json.dumps([[message.role, message.content] for message in asked])))
    return digest_of(_utf8(json.dumps(example.tokens)))


def groups_of(example: Example) -> Collection[Hashable]:
    """The groups of the example: its labels or tags. Each side needs an example of each group. Without labels, all
    examples are one group.
    """
    if isinstance(example, Tagged):
        return set(example.tags)
    return example.labels if isinstance(example, Labeled) and not isinstance(example.label, float) else ((),)


@dataclass
class _Input:
    digest: bytes
    groups: set[Hashable]
    held_out: bool


class _Group:
    """The inputs of one label, in the order of their digests, and how many of them are held out."""

    def __init__(self) -> None:
        self.inputs: list[_Input] = []
        self.held_out = 0

    @property
    def in_training(self) -> int:
        return len(self.inputs) - self.held_out

    def can_spare(self, moved: _Input) -> bool:
        """Whether `moved` can leave its side: others of the group stay there, or it is validation and the group has
        only one."""
        if moved.held_out:
            return self.held_out > 1 or len(self.inputs) == 1
        return self.in_training > 1


def held_out_inputs(inputs: Mapping[bytes, Collection[Hashable]], share: float) -> set[bytes]:
    """The digests of the inputs that are validation.

    Args:
        inputs: digest of each distinct input -> the groups of its examples.
        share: share of the inputs to hold out, 0 to 1.
    """
    limit = digest_limit(share)
    every = [_Input(digest, set(groups), digest < limit) for digest, groups in sorted(inputs.items())]
    groups: dict[Hashable, _Group] = defaultdict(_Group)
    for entry in every:
        for name in entry.groups:
            groups[name].inputs.append(entry)
            groups[name].held_out += entry.held_out
    for name in sorted(groups, key=str):
        group = groups[name]
        if not group.in_training:
            # Training must have every label, even if each choice takes another label's last input from validation.
            backwards = group.inputs[::-1]
            _move(next((entry for entry in backwards if _can_move(entry, groups)), backwards[0]), groups)
        elif not group.held_out and (found := next((e for e in group.inputs if _can_move(e, groups)), None)):
            _move(found, groups)
    return {entry.digest for entry in every if entry.held_out}


def _can_move(entry: _Input, groups: Mapping[Hashable, _Group]) -> bool:
    return all(groups[name].can_spare(entry) for name in entry.groups)


def _move(entry: _Input, groups: Mapping[Hashable, _Group]) -> None:
    entry.held_out = not entry.held_out
    for name in entry.groups:
        groups[name].held_out += 1 if entry.held_out else -1


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
