"""What a reader sees in place of the names of fields in manifests and environment.json."""

from __future__ import annotations

from acorn.figure_names import CONDITIONS, TEXT_COUNTS
from acorn.report.markup import row_name

DATA = {
    **{name: TEXT_COUNTS[name] for name in ("documents", "bytes", "words", "tokens")},
    "round_trip_rate": CONDITIONS["round_trip_rate"],
    "also_in_training_rate": "Distinct documents that are also in training",
    "dropped_empty": "Dropped as empty rows",
    "dropped_duplicates": "Dropped as duplicates",
    "dropped_overlap": "Dropped as held-out text",
    "dropped_by_cleaning": "Dropped as empty after cleaning",
    "dropped_bad": "Dropped as unreadable",
    "replaced": "Documents in which unreadable bytes were replaced",
    "with_bom": "Files with a byte order mark",
    "with_crlf": "Documents with Windows line ends (CRLF)",
    "with_nul": "Documents with NUL characters",
    "text_sha256": "SHA-256 of the text, first digits",
}
TOKENIZER = {
    "kind": "Kind",
    "vocab_size": "Vocabulary size",
    "separator_id": "Token ID of the document separator",
    "fingerprint": "SHA-256 of the tokenizer",
}
ENVIRONMENT = {
    "command_line": "Command line",
    "first_command_line": "Command line of the start",
    "starts_from": "Starting weights",
    "choices": "Chosen for this machine",
    "machine": "Processor",
    "instructions": "Vector instructions",
    "device": "Device",
    "threads": "CPU threads",
    "precision": "Precision",
    "compile": "Compiled with torch.compile",
    "native": "Computed by acorn's C code",
    "peak": "Peak of the machine",
    "strategy": "Parallel strategy",
    "world_size": "Processes",
    "windows_per_rank": "Training windows",
    "system": "Operating system",
    "torch": "PyTorch",
    "versions": "Package versions",
    "acorn": "acorn",
    "acorn_commit": "Git commit of acorn",
    "acorn_source": "SHA-256 of acorn's code",
    "git_folder": "Git repository of the current folder",
    "git_revision": "Git commit of that repository",
}
"""In the order of the page."""


def label(key: str, labels: dict[str, str]) -> str:
    """The label of a field, as HTML; for one of another version that has none, its own name as words."""
    return labels.get(key) or row_name(key)
