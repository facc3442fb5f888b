"""The lines of a conversation: messages for the model, and commands such as /undo. Needs no terminal."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from acorn.counting import counted
from acorn.errors import AcornError, InputError
from acorn.files import path_named
from acorn.generate.conversation import Conversation, Reply
from acorn.generate.transcript import append_line

HELP = """\
/undo           take back the last message and its answer
/retry          answer the last message again
/new            begin a new conversation
/system TEXT    set the system message; /system alone shows it, /system none removes it
/save [FILE]    add the conversation as a line to a .jsonl, from which acorn finetune can learn
/help           show this
/exit           end
A line that begins with // is sent as a message that begins with /."""

COMMANDS = ("undo", "retry", "new", "system", "save", "help", "exit")

NO_SYSTEM = "none"
"""What is given to /system to remove the system message."""


def never_stopped() -> AbstractContextManager[Callable[[], bool]]:
    """A `stoppable` for when nobody can stop an answer."""
    return nullcontext(lambda: False)


class Session:
    """A conversation that is led line by line.

    Args:
        write: takes pieces of answers, with a line end after each answer.
        say: takes notes for the user.
        save_to: file to which the conversation is added when it ends; None: nowhere.
        stoppable: gives for the time of an answer a function that says whether the user wants to stop it.

    Attributes:
        refused: messages that were not answered, because the model cannot read them.
    """

    def __init__(
        self,
        conversation: Conversation,
        write: Callable[[str], None],
        say: Callable[[str], None],
        save_to: Path | None = None,
        stoppable: Callable[[], AbstractContextManager[Callable[[], bool]]] = never_stopped,
    ) -> None:
        self.conversation, self.refused = conversation, 0
        self._write, self._say, self._save_to, self._stoppable = write, say, save_to, stoppable
        self._forgotten = 0  # turns of which was said that they are no longer read
        self._retries = 0
        self._saved: tuple[Path, object] | None = None

    def take(self, line: str) -> bool:
        """Does what a line says; false: it ends the conversation."""
        if not line.strip():
            return True
        if line.startswith("/") and not line.startswith("//"):
            return self._command(line[1:])
        self._retries = 0
        self._answer(line.removeprefix("/") if line.startswith("//") else line)
        return True

    def refuse(self, reason: str) -> None:
        """Says why a message was not sent."""
        self.refused += 1
        self._say(f"Not sent: {reason}")

    def close(self) -> None:
        """Saves the conversation, if `save_to` is given and it has an answer that is not saved yet.

        Raises:
            ResourceError: the file cannot be written.
        """
        if self._save_to is not None and self.conversation.turns:
            self._save(self._save_to)

    def _answer(self, message: str, seed: int | None = None) -> bool:
        """Answers a message; false: it was refused."""
        try:
            with self._stoppable() as is_stopped:
                reply = self.conversation.ask(message, self._write, is_stopped, seed)
        except InputError as error:
            self.refuse(f"{error.what} Fix: {error.fix}.")
            return False
        if reply.turn:
            self._write("\n")
        self._tell(reply)
        return True

    def _tell(self, reply: Reply) -> None:
        """Says what the text of an answer does not show."""
        context = self.conversation.model.config.block_size
        if reply.forgotten > self._forgotten:
            oldest = "turn is" if reply.forgotten == 1 else f"{reply.forgotten:,} turns are"
            self._say(f"The context of {context:,} tokens is full: the oldest {oldest} no longer read.")
        self._forgotten = reply.forgotten
        if reply.turn is None:
            self._say("Stopped before the answer began. Your message was taken back.")
        elif reply.turn.ending == "interrupted":
            self._say("Stopped. The beginning of the answer is kept; /undo takes it back.")
        elif reply.turn.ending == "length":
            most = counted(self.conversation.settings.max_new_tokens, "token")
            self._say(f"The answer was cut after {most} (--max-new-tokens).")
        elif reply.turn.ending == "context":
            self._say(f"The answer was cut: the context of {context:,} tokens is full.")
        elif not reply.turn.answer:
            self._say("The answer is empty: the model ended it immediately. /retry answers again.")

    def _command(self, line: str) -> bool:
        name, _, rest = line.partition(" ")
        name, rest = name.strip().lower(), rest.strip()
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            meant = f" Did you mean /{near[0]}?" if near else ""
            self._say(
                f"There is no command /{name}.{meant} /help lists all. To send a message that begins with /, "
                "begin it with //."
            )
            return True
        if rest and name not in ("system", "save"):
            self._say(f"/{name} takes nothing after it. To send the line as a message, begin it with //.")
            return True
        if name == "exit":
            return False
        if name == "help":
            self._say(HELP)
        elif name == "undo":
            self._undo()
        elif name == "retry":
            self._retry()
        elif name == "new":
            self.close()
            self.conversation.turns.clear()
            self._forgotten = 0
            self._say("A new conversation begins.")
        elif name == "system":
            self._system(rest)
        else:
            self._save_command(rest)
        return True

    def _undo(self) -> None:
        turn = self.conversation.undo()
        self._say(f"Taken back: {turn.question}" if turn else "There is nothing to take back.")

    def _retry(self) -> None:
        turn = self.conversation.undo()
        if turn is None:
            self._say("There is no message to answer again.")
            return
        self._retries += 1
        seed = self.conversation.settings.seed
        if not self._answer(turn.question, None if seed is None else seed + self._retries):
            self.conversation.turns.append(turn)

    def _system(self, text: str) -> None:
        if not text:
            self._say(f"System message: {self.conversation.system or '(none)'}")
            return
        try:
            self.conversation.set_system("" if text == NO_SYSTEM else text)
        except AcornError as error:
            self._say(error.what)
            return
        self._say("The system message is set." if self.conversation.system else "There is no system message now.")

    def _save_command(self, name: str) -> None:
        if not name and self._save_to is None:
            self._say("Name a file: /save chats.jsonl")
            return
        try:
            self._save(path_named(name, "/save") if name else self._save_to)  # type: ignore[arg-type]
        except AcornError as error:
            self._say(f"Not saved: {error.what} Fix: {error.fix}.")

    def _save(self, path: Path) -> None:
        """Adds the conversation to a file, unless its last line there is the same.

        Raises:
            UsageError: it is not a .jsonl.
            ResourceError: it cannot be written.
        """
        record, left_out = self.conversation.record()
        answers = sum(message["role"] == "assistant" for message in record["messages"])
        if not answers:
            self._say("Nothing was saved: there is no answer yet.")
            return
        if self._saved == (path, record):
            return
        append_line(path, record)
        self._saved = (path, record)
        less = f"; {counted(left_out, 'turn')} with an empty answer left out" if left_out else ""
        self._say(f"Added to {path}: a conversation of {counted(answers, 'answer')}{less}.")
