"""What a reader sees in place of the names of fields in manifests and environment.json."""

from __future__ import annotations

from acorn.report.markup import row_name

DATA = {
    "documents": "Documents",
    "bytes": "Bytes of original text",
    "words": "Words, ends of line counted",
    "tokens": "Tokens, separators counted",
    "round_trip_rate": "Words that survive a round trip",
    "also_in_training_rate": "Distinct documents that are also in training",
    "dropped_empty": "Dropped as empty rows",
    "dropped_duplicates": "Dropped as duplicates",
    "dropped_overlap": "Dropped as held-out text",
    "dropped_by_cleaning": "Dropped as empty after cleaning",
    "dropped_bad": "Dropped as unreadable",
    "replaced": "Documents with characters that could not be read",
    "with_bom": "Files with a byte order mark",
    "with_crlf": "Documents with Windows line ends (CRLF)",
    "with_nul": "Documents with NUL characters",
    "text_sha256": "SHA-256 of the text, first digits",
}
TOKENIZER = {
    "fingerprint": "SHA-256 of the tokenizer",
    "kind": "Kind",
    "separator_id": "Id of the document separator",
    "vocab_size": "Vocabulary size",
}
ENVIRONMENT = {
    "acorn": "acorn",
    "choices": "Chosen for this machine",
    "command_line": "Command line",
    "first_command_line": "Command line of the start",
    "compile": "Compiled by torch.compile",
    "git_revision": "Git revision of the folder it was started in",
    "instructions": "Vector instructions of the processor",
    "machine": "Processor",
    "native": "Computed by acorn's C code",
    "strategy": "Parallel strategy",
    "system": "Operating system",
    "torch": "PyTorch",
    "versions": "Versions of packages",
    "windows_per_rank": "Training windows by process",
    "world_size": "Processes",
}


def label(key: str, labels: dict[str, str]) -> str:
    """The label of a field, as HTML; of one that has none, its own name as words."""
    return labels.get(key) or row_name(key)
