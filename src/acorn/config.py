"""All settings, as frozen values that check themselves.

Each section is a class, each setting a field with one line of description (and its unit). `docs/config.md` is generated
from the descriptions. Reading and writing files, and overrides, are in `config_files.py`.
"""

from __future__ import annotations

import codecs
import struct
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator


def _as_tuple(value: object) -> object:
    """A lone string stands for a list of one; TOML arrays arrive as lists."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _as_sources(value: object) -> object:
    """A list of sources. A lone empty string means none; in a longer list it is refused, as it could mean a folder."""
    if value == "":
        return ()
    sources = _as_tuple(value)
    if isinstance(sources, tuple) and "" in sources:
        raise ValueError('"" in a list names no text; leave it out, or write "." for the current folder')
    return sources


MOST_LAYERS, WIDEST, LONGEST, MOST_ENTRIES, LARGEST_BATCH = 2**11, 2**17, 2**24, 2**24, 2**24
"""Limits far beyond any real network. Configs also come from downloaded files, which may state any size."""

MOST_THREADS = 2**12
"""More threads than any machine has cores. OpenMP needs stack space for each, and 2**20 threads overflow the stack."""

MOST_SAMPLE_TOKENS = 2**16
"""Far beyond what anybody reads: training waits while a sample is drawn."""

Strings = Annotated[tuple[str, ...], BeforeValidator(_as_sources)]


def _current_architecture(name: object) -> object:
    """`original` was once called `seed`; configs and runs from that time can still be read."""
    return "original" if name == "seed" else name


SMALLEST_SINGLE, LARGEST_SINGLE = 2.0**-126, (2 - 2.0**-23) * 2.0**127
"""Range of normal numbers in single precision (fp32). Smaller numbers may become 0, and some settings are divisors."""


def _in_single_precision(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


NOT_FILE_ENCODINGS = frozenset({"charmap", "idna", "mbcs", "oem", "punycode", "raw-unicode-escape", "unicode-escape"})
"""Codecs of Python that decode bytes to text and are not the encoding of a file: notations inside another text, and
Windows' names for whatever encoding its machine has. https://docs.python.org/3/library/codecs.html, "Python Specific
Encodings"."""


def _is_unicode(text: str) -> bool:
    """Whether `text` has no lone surrogates. Those stand for bytes of a file name that is not UTF-8."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


class Section(BaseModel):
    """A frozen section that refuses unknown keys and never coerces types (an int may stand for a float)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())

    @field_validator("*")
    @classmethod
    def _can_be_written(cls, value: object) -> object:
        """Refuses values that TOML or JSON cannot hold: integers beyond 64 bits, and text that is not Unicode."""
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, int) and part >= 2**63:
                raise ValueError("integers must be below 2^63")
            if isinstance(part, str) and not _is_unicode(part):
                raise ValueError(f"{part!r} is not Unicode text; rename the file, or name it by a glob")
        return value


class SinglePrecisionSection(Section):
    """A section whose floats are used in single precision, and are therefore checked in it."""

    @field_validator("*")
    @classmethod
    def _fits_single_precision(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, float) or not value:
            return value
        if not SMALLEST_SINGLE <= abs(value) <= LARGEST_SINGLE:
            raise ValueError(
                f"{value} is outside the range of single precision: 0, or {SMALLEST_SINGLE:.4g} to 3.4e+38"
            )
        bounds = cls.model_fields[info.field_name or ""].metadata
        if any(getattr(bound, "lt", None) == 1 for bound in bounds) and _in_single_precision(value) == 1:
            raise ValueError(f"{value} is 1 in single precision, but must be below 1")
        return value


class DataConfig(Section):
    """Where the text comes from and how it becomes token shards."""

    source: Strings = Field(
        (), description="Training text: files, globs, folders, `hf:OWNER/NAME[:CONFIG]` or `bundled:wikitext-2`."
    )
    valid_source: Strings = Field(
        (),
        description="Validation text; empty: the source's own validation split, or else a share of the training text.",
    )
    test_source: Strings = Field((), description="Test text; empty: the source's own test split, or else none.")
    shards: str = Field("", description="A folder made by `acorn data prepare`, used instead of source and tokenizer.")
    clean: Literal["none", "wikitext"] = Field(
        "none",
        description="`wikitext` removes WikiText's markup (`@-@`, line ends, apostrophes) as in preset `original`.",
    )
    document: Literal["auto", "row", "line", "block", "file"] = Field(
        "auto",
        description="What counts as one document: `row` of a table, `line`, whole `file`, or `block`: a part of a text "
        "file (1/64 of it or 16 KiB) that ends at a blank line if possible. `auto`: rows of tables, lines of "
        "WikiText, otherwise files; blocks if there is one file only, and for files above 1 MiB.",
    )
    valid_fraction: float = Field(
        0.1, gt=0, lt=1, description="Share of documents held out for validation when no validation text is given."
    )
    text_field: str = Field(
        "text", min_length=1, description="Name of the text column in .jsonl, .parquet and Hub data."
    )
    dedup: bool = Field(
        True,
        description="Drop exact duplicates of earlier documents: from training, and from validation if that is a share "
        "of the training text.",
    )
    encoding: str = Field(
        "utf-8",
        description="Encoding of text files, by its Python name (`latin-1`, `cp1252`, `utf-16`); it is never guessed.",
    )
    errors: Literal["strict", "replace", "skip"] = Field(
        "strict",
        description="On invalid bytes and rows: `strict` stops, `replace` inserts U+FFFD, `skip` drops the document.",
    )
    overlap: Literal["warn", "drop", "fail"] = Field(
        "warn",
        description="Held-out documents that are also in training: `warn`, `drop` them from training, or `fail`.",
    )
    shard_tokens: int = Field(2**26, ge=1024, description="Tokens per shard file.")
    shuffle_group: int = Field(0, ge=0, description="Number of shards that are shuffled together; 0: all.")

    @field_validator("encoding")
    @classmethod
    def _is_an_encoding(cls, name: str) -> str:
        """One spelling of each name, so that `latin1` and `ISO-8859-1` count as equal on resume."""
        try:
            b"ab".decode(name, "replace")  # refuses what is no encoding of text, such as base64
            codecs.getincrementaldecoder(name)
            canonical = codecs.lookup(name).name
        except (LookupError, ValueError):
            canonical = ""
        if not canonical or canonical.replace("_", "-") in NOT_FILE_ENCODINGS:
            raise ValueError(
                f"{name!r} is not an encoding of text files that Python knows; some are utf-8, latin-1, cp1252, "
                "utf-16, gb18030"
            )
        return canonical


class TokenizerConfig(Section):
    """How text becomes token ids."""

    kind: Literal["wordpiece", "bpe"] = Field(
        "bpe",
        description="`bpe`: byte-level, lossless, for any language. `wordpiece`: as in preset `original`, for English.",
    )
    vocab_size: int = Field(
        8192,
        ge=1,
        le=MOST_ENTRIES,
        description="Vocabulary entries, special tokens included; a small text may give fewer.",
    )
    path: str = Field("", description="A `tokenizer.json` to use instead of training one.")


class ModelConfig(SinglePrecisionSection):
    """The shape of the network."""

    architecture: Annotated[Literal["original", "gpt2", "modern"], BeforeValidator(_current_architecture)] = Field(
        "modern",
        description="`modern`: rotary positions, RMSNorm, SwiGLU. `gpt2`: GPT-2. `original`: GPT-2 with ReLU and fewer "
        "biases.",
    )
    n_layer: int = Field(4, ge=1, le=MOST_LAYERS, description="Transformer blocks.")
    n_head: int = Field(0, ge=0, description="Query heads of each block; 0: chosen so that a head is about 64 wide.")
    n_kv_head: int = Field(0, ge=0, description="Key and value heads (modern only); 0: as many as query heads.")
    n_embd: int = Field(256, ge=1, le=WIDEST, description="Width of the residual stream.")
    n_inner: int = Field(
        0,
        ge=0,
        le=WIDEST,
        description="Hidden width of the MLP; 0: 4 x n_embd (modern: 8/3 x n_embd, rounded up to a multiple of 64).",
    )
    head_width: int = Field(0, ge=0, le=WIDEST, description="Width of a head (modern only); 0: n_embd / n_head.")
    block_size: int = Field(256, ge=1, le=LONGEST, description="Context length, in tokens.")
    vocab_size: int = Field(0, ge=0, le=MOST_ENTRIES, description="Vocabulary entries; 0: the tokenizer's.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout probability while training.")
    tied: Literal["auto"] | bool = Field(
        "auto", description="Whether token embedding and head share one matrix; `auto`: yes, except for `original`."
    )
    qk_norm: bool = Field(
        True, description="Normalize queries and keys in each head (modern only); `false` gives the Llama layout."
    )
    norm_eps: float = Field(0.0, ge=0, le=1, description="Epsilon of the norms; 0: 1e-5 (modern: 1e-6).")
    rope_theta: float = Field(10_000.0, gt=0, description="Base of the rotary position angles (modern only).")

    @property
    def heads(self) -> int:
        """Query heads: as set, or the divisor of n_embd that gives heads of an even width nearest to 64.

        Every even n_embd allows heads 2 wide, so widths further from 64 than that need not be tried.
        """
        if self.n_head:
            return self.n_head
        fits = [self.n_embd // width for width in range(2, 127, 2) if self.n_embd % width == 0]
        return min(fits, key=lambda n: (abs(self.n_embd // n - 64), n), default=1)

    @property
    def head_dim(self) -> int:
        return self.head_width or self.n_embd // self.heads

    @property
    def kv_heads(self) -> int:
        return self.n_kv_head or self.heads

    @property
    def is_tied(self) -> bool:
        return self.architecture != "original" if self.tied == "auto" else self.tied

    @property
    def mlp_hidden(self) -> int:
        """Hidden width of the MLP: 4x, or 8/3 x rounded up to a multiple of 64 for SwiGLU's three matrices."""
        if self.n_inner:
            return self.n_inner
        if self.architecture != "modern":
            return 4 * self.n_embd
        return -(-8 * self.n_embd // (3 * 64)) * 64

    @property
    def epsilon(self) -> float:
        return self.norm_eps or (1e-6 if self.architecture == "modern" else 1e-5)

    def spelled_out(self) -> ModelConfig:
        """The same network with every derived value stated, so that two spellings of one network are equal."""
        modern = self.architecture == "modern"
        stated = {
            "n_head": self.heads,
            "n_kv_head": self.kv_heads if modern else 0,
            "n_inner": self.mlp_hidden,
            "head_width": self.head_dim if modern else 0,
            "tied": self.is_tied,
            "qk_norm": self.qk_norm and modern,
            "norm_eps": self.epsilon,
            "rope_theta": self.rope_theta if modern else 10_000.0,
        }
        return self.model_copy(update=stated)

    @model_validator(mode="after")
    def _shapes_fit(self) -> ModelConfig:
        if self.n_embd % self.heads and not self.head_width:
            raise ValueError(f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head})")
        if self.heads % self.kv_heads:
            raise ValueError(f"n_head ({self.heads}) must be a multiple of n_kv_head ({self.n_kv_head})")
        if self.architecture == "modern" and self.head_dim % 2:
            raise ValueError(f"rotary positions need an even head width, not {self.head_dim}")
        if self.architecture != "modern" and self.head_width:
            raise ValueError(f"head_width is for the modern architecture; {self.architecture} needs 0")
        if self.architecture != "modern" and self.kv_heads != self.heads:
            raise ValueError(f"n_kv_head is for the modern architecture; {self.architecture} needs 0")
        return self


class OptimizerConfig(SinglePrecisionSection):
    """How gradients update the parameters."""

    name: Literal["adamw", "muon"] = Field(
        "adamw",
        description="`muon`: Muon for the matrices of the blocks, AdamW for the rest. `adamw`: AdamW for everything.",
    )
    lr: float = Field(
        0.0,
        ge=0,
        description="Peak learning rate of AdamW, or of Muon; 0: 0.001 for AdamW, 0.02 for Muon. In finetuning, 0 is a "
        "rate that falls with `n_embd`.",
    )
    embedding_lr: float = Field(
        0.004, gt=0, description="With Muon: peak AdamW learning rate of the embeddings (and of a tied head)."
    )
    head_lr: float = Field(0.004, gt=0, description="With Muon: peak AdamW learning rate of an untied head.")
    vector_lr: float = Field(0.004, gt=0, description="With Muon: peak AdamW learning rate of norms and biases.")
    weight_decay: float = Field(
        0.0, ge=0, description="Decoupled weight decay of the matrices, per unit of learning rate."
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's decay rate of the mean gradient.")
    beta2: float = Field(0.999, ge=0, lt=1, description="AdamW's decay rate of the mean squared gradient.")
    eps: float = Field(1e-8, gt=0, description="Epsilon of AdamW.")
    momentum: float = Field(0.95, ge=0, lt=1, description="Muon's momentum.")
    clip: float = Field(1.0, ge=0, description="Largest global gradient norm; 0: no clipping.")

    @property
    def peak_lr(self) -> float:
        return self.lr or (0.02 if self.name == "muon" else 1e-3)


class ScheduleConfig(Section):
    """Learning rate and context over the run. Shares are of the whole run, so they fit any length."""

    name: Literal["constant", "linear", "cosine", "wsd"] = Field(
        "linear",
        description="After the warm-up: `constant`, `linear` or `cosine` decay, or `wsd` (constant, then linear).",
    )
    warmup: float = Field(0.02, ge=0, le=1, description="Share of the run in which the learning rate rises from zero.")
    decay: float = Field(
        0.4, ge=0, le=1, description="Share of the run in which `wsd` decays (less if the warm-up overlaps)."
    )
    floor: float = Field(0.0, ge=0, le=1, description="Learning rate at the end of a decay, as a share of the peak.")
    short_context: int = Field(
        0,
        ge=0,
        description="Context in tokens in the first part of the run, a divisor of block_size; 0: block_size.",
    )
    short_share: float = Field(0.5, ge=0, le=1, description="Share of the run that uses `short_context`.")


class TrainConfig(Section):
    """Length, batch, precision, intervals and device."""

    init_from: str = Field(
        "",
        description="Run, model folder or `hf:OWNER/NAME` to start from: its network, weights and tokenizer are used.",
    )
    init: Literal["random", "auto", "bigrams"] = Field(
        "random",
        description="Initial weights. `bigrams`: embedding and untied head are initialized from bigram counts of the "
        "text, which helps short runs (not for `original`). `auto`: bigrams if the network allows it.",
    )
    steps: int = Field(0, ge=0, description="Optimizer steps of the run; 0: `minutes` sets the length.")
    minutes: float = Field(
        0.0,
        ge=0,
        description="Minutes of wall time from the first batch on, without time stopped or asleep; 0: `steps` sets the "
        "length.",
    )
    batch_size: int = Field(16, ge=1, le=LARGEST_BATCH, description="Sequences per optimizer step.")
    micro_batch_size: int = Field(
        0, ge=0, le=LARGEST_BATCH, description="Sequences per forward pass; 0: chosen to fit in memory."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the initial weights, the data order and dropout.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="`auto`: cuda if available, else mps, else cpu."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="`auto`: bf16 if it is faster on this hardware, else fp16 if that is (older GPUs, some CPUs), else "
        "fp32.",
    )
    compile: Literal["auto"] | bool = Field(
        "auto",
        description="Use torch.compile; `auto`: on a GPU, if the run is long enough to amortize the compilation.",
    )
    deterministic: bool = Field(
        True, description="Use only operations whose results repeat bit for bit on the same machine."
    )
    threads: int = Field(
        0, ge=0, le=MOST_THREADS, description="CPU threads of PyTorch; 0: one per core that this process may use."
    )
    eval_every: int = Field(200, ge=0, description="Steps between validations; 0: only at the end.")
    eval_tokens: int = Field(
        0,
        ge=0,
        description="Validation tokens scored while training (always the first ones); 0: the whole split.",
    )
    save_every: int = Field(500, ge=0, description="Steps between checkpoints; 0: only at the end.")
    sample_every: int = Field(0, ge=0, description="Steps between generated samples; 0: only at the end.")
    sample_prompts: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        ("",), description="Prompts of the samples; an empty prompt starts a new document."
    )
    sample_tokens: int = Field(64, ge=1, le=MOST_SAMPLE_TOKENS, description="Tokens of each sample.")
    log_every: int = Field(1, ge=0, description="Steps between training lines in metrics.jsonl; 0: never.")
    max_skips: int = Field(
        5,
        ge=0,
        description="Consecutive steps that may be skipped for a non-finite loss or gradient before a rollback.",
    )
    max_rollbacks: int = Field(3, ge=0, description="Rollbacks before the run stops with an error.")

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        if self.steps and self.minutes:
            raise ValueError("steps and minutes exclude each other; set one of them")
        return self


class CheckpointConfig(Section):
    """What is kept."""

    keep: int = Field(2, ge=1, description="Number of newest checkpoints to keep, in addition to the best one.")
    final: Literal["last", "best"] = Field(
        "last", description="Weights for `final/`: the `last` ones, or the `best` by validation loss."
    )


class ParallelConfig(Section):
    """Processes of a run. In this version a run is one process."""

    strategy: Literal["auto", "single"] = Field(
        "auto", description="`single`: one process. `auto` is the same in this version."
    )


class ReportConfig(Section):
    """Trackers."""

    trackers: Annotated[tuple[Literal["tensorboard", "wandb", "trackio"], ...], BeforeValidator(_as_tuple)] = Field(
        (), description="Trackers that also receive the metrics: `tensorboard`, `wandb`, `trackio`."
    )


class FinetuneConfig(Section):
    """How rows become examples of a task, and which of a model's weights learn from them."""

    task: Literal["", "auto", "chat", "complete", "classify", "regress", "tag"] = Field(
        "", description="What the model is finetuned for; `auto`: by the columns of the rows. Empty: pretraining."
    )
    epochs: float = Field(
        0.0,
        ge=0,
        description="Passes over the training examples, from which `train.steps` follows; 0: `train.steps` or "
        "`train.minutes` sets the length.",
    )
    loss_on: Literal["answers", "all"] = Field(
        "answers", description="Tokens of chat and complete that are trained: those of the answers, or all."
    )
    overlong: Literal["auto", "refuse", "drop", "cut_prompt", "cut"] = Field(
        "auto",
        description="Examples longer than the context: refuse, drop, cut the prompt's beginning (chat, complete), or "
        "keep the text's beginning (classify, regress). `auto`: `refuse` for chat, complete and tag, else `cut`.",
    )
    labels: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        (), description="The labels (classify) or tags, in the order of their ids; empty: those of training, sorted."
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="Weight of a label in the loss; `balanced`: in inverse proportion to its examples."
    )
    freeze: int = Field(
        0,
        ge=0,
        le=MOST_LAYERS,
        description="Number of first blocks that are not trained, nor are the embeddings; all of them: the head alone "
        "is trained. 0: everything is trained.",
    )
    replay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the samples that are windows of the base's own training text (chat, complete); 0: none.",
    )
    text_field: str = Field("", description="Column of the text or tokens; empty: `text` (tag: `tokens`).")
    label_field: str = Field("", description="Column of the label or tags; empty: `label` (tag: `tags`).")
    prompt_field: str = Field("", description="Column of the prompt; empty: `prompt`.")
    completion_field: str = Field("", description="Column of the completion; empty: `completion`.")

    @model_validator(mode="after")
    def _labels_are_distinct(self) -> FinetuneConfig:
        bare = [label.strip() for label in self.labels]
        if "" in bare or len(set(bare)) < len(bare) or bare != list(self.labels):
            raise ValueError("labels must be distinct, not empty, and without white space around them")
        return self


class LoraConfig(SinglePrecisionSection):
    """Low-rank adapters in place of training whole matrices."""

    rank: int = Field(0, ge=0, le=WIDEST, description="Rank of the factors; 0: no adapter, all weights are trained.")
    alpha: float = Field(0.0, ge=0, description="The factors' output counts alpha / rank; 0: twice the rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping an input of the factors.")
    targets: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        (), description="Linear layers that get factors, by their names in a block; empty: all of them."
    )


class Config(Section):
    """A whole run."""

    name: str = Field(
        "run", pattern=r"^[^/\\\x00-\x1f]+$", description="Name of the run; its default folder is runs/<name>."
    )
    data: DataConfig = Field(DataConfig(), description="The text.")
    tokenizer: TokenizerConfig = Field(TokenizerConfig(), description="The tokenizer.")
    model: ModelConfig = Field(ModelConfig(), description="The network.")
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="The optimizer.")
    schedule: ScheduleConfig = Field(ScheduleConfig(), description="Learning rate and context over time.")
    train: TrainConfig = Field(TrainConfig(), description="Length, batch, precision, intervals.")
    checkpoint: CheckpointConfig = Field(CheckpointConfig(), description="What is kept.")
    parallel: ParallelConfig = Field(ParallelConfig(), description="Processes.")
    report: ReportConfig = Field(ReportConfig(), description="Trackers.")
    finetune: FinetuneConfig = Field(FinetuneConfig(), description="The task, for `acorn finetune` alone.")
    lora: LoraConfig = Field(LoraConfig(), description="Adapters, for `acorn finetune` alone.")

    @model_validator(mode="after")
    def _one_length(self) -> Config:
        """Steps beside epochs are no fault here: a run stores the steps that its epochs come to."""
        if self.finetune.epochs and self.train.minutes:
            raise ValueError("finetune.epochs and train.minutes exclude each other; set one of them")
        return self

    @property
    def trains_on_text(self) -> bool:
        """Whether it is of a run of `acorn pretrain`, not of `acorn finetune`."""
        return self.finetune == FinetuneConfig() and self.lora == LoraConfig()

    @model_validator(mode="after")
    def _contexts_fit(self) -> Config:
        short, whole = self.schedule.short_context, self.model.block_size
        if short and short < whole and whole % short:
            raise ValueError(f"schedule.short_context ({short}) must be a divisor of model.block_size ({whole})")
        return self

    @property
    def chosen_init(self) -> Literal["random", "bigrams"]:
        """The initialization that `train.init` stands for: `bigrams` if asked for, or if `auto` can use it."""
        can = not self.train.init_from and self.model.architecture != "original" and not self.model.is_tied
        return "bigrams" if can and self.train.init != "random" else "random"

    @model_validator(mode="after")
    def _bigrams_fit(self) -> Config:
        if self.train.init == "bigrams" and self.chosen_init == "random":
            raise ValueError(
                "train.init=bigrams needs new weights (no train.init_from) and a modern or gpt2 network with an untied "
                "head (model.tied=false); train.init=auto uses bigrams only where that holds"
            )
        return self
