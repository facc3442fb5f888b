"""The public Python API. Every name is also available as `acorn.<name>`."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Never, cast

from acorn.checkpoint.load import load as load_model
from acorn.config_files import build_config, load_config, with_overrides
from acorn.counting import counted
from acorn.errors import AcornError, UsageError, shown
from acorn.files import check_links, path_named, read_errors
from acorn.generate.engine import Generation, generate
from acorn.generate.settings import SamplingSettings
from acorn.model.gpt import GPT
from acorn.model.sizing import size_of
from acorn.report.terminal import Screen, TaskProgress, TrainingLine
from acorn.run import pretrain as training
from acorn.run.lifecycle import RunResult as Run
from acorn.runtime.choose import device_for
from acorn.text.splits import TextSplits
from acorn.tokenizer import tokenizer as tokenizers
from acorn.tokenizer.measuring import TokenizerReport, measure
from acorn.tokenizer.training import train

__all__ = ["AcornError", "LanguageModel", "Run", "SamplingSettings", "Tokenizer", "load", "pretrain"]

Source = str | os.PathLike[str]


class Tokenizer(tokenizers.Tokenizer):
    """A tokenizer that can also be trained."""

    @classmethod
    def train(
        cls,
        sources: Source | Sequence[Source],
        *,
        kind: Literal["wordpiece", "bpe"] = "bpe",
        vocab_size: int = 8192,
        clean: Literal["none", "wikitext"] = "none",
        overrides: str | Sequence[str] = (),
        **unknown: Never,
    ) -> Tokenizer:
        """Trains a tokenizer on the training split of `sources`.

        Args:
            sources: files, globs, folders, `hf:...` or `bundled:wikitext-2`; a single one means
                a list of one.
            overrides: data settings, such as `data.text_field=body`.
            unknown: catches unknown arguments, so that the error can suggest the right name.

        Raises:
            UsageError: an argument is unknown, or a source, a setting or a size is invalid.
            InputError: there is no text, or it cannot be read.
        """
        _refuse_unknown(unknown, ("sources", "kind", "vocab_size", "clean", "overrides"))
        values = {
            "data": {"source": _source_names(sources), "clean": clean},
            "tokenizer": {"kind": kind, "vocab_size": vocab_size},
        }
        config = with_overrides(build_config(values, "the arguments"), overrides, "acorn tokenizer train")
        texts = TextSplits.open(config.data)
        trained = train(
            lambda: texts.documents("train"),
            config.tokenizer.kind,
            config.tokenizer.vocab_size,
            entries=texts.entries(config.tokenizer.kind),
        )
        tokenizer = cls.from_json(trained.to_json())
        assert isinstance(tokenizer, cls)
        return tokenizer

    def measure(self, texts: str | Iterable[str]) -> TokenizerReport:
        """Measures how well the vocabulary fits `texts`, which should be held-out text.

        Args:
            texts: a single one is the same as a list of one.

        Raises:
            UsageError: `texts` is not a string or a list of strings.
        """
        return measure(self, _strings(texts))


class LanguageModel:
    """A trained model with its tokenizer.

    Attributes:
        model: the network, a torch module in eval mode.
        tokenizer: text to ids and back.
        end_ids: tokens that end a text, in addition to the separator.
        trained_ids: other reserved tokens that were trained, so that they may be sampled.
    """

    def __init__(
        self,
        model: GPT,
        tokenizer: tokenizers.Tokenizer,
        end_ids: Sequence[int] = (),
        trained_ids: Sequence[int] = (),
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.end_ids, self.trained_ids = tuple(end_ids), tuple(trained_ids)

    def __repr__(self) -> str:
        config = self.model.config
        return (
            f"<acorn.LanguageModel: {config.architecture}, {counted(config.n_layer, 'layer')} of width "
            f"{config.n_embd:,}, {size_of(config, self.model.head_spec).parameters:,} parameters, "
            f"context {config.block_size:,}, "
            f"{self.tokenizer.kind} of {self.tokenizer.vocab_size:,}, on {self.model.device}>"
        )

    def generate(
        self,
        prompt: str = "",
        *,
        max_new_tokens: int = SamplingSettings.max_new_tokens,
        temperature: float = SamplingSettings.temperature,
        top_k: int = SamplingSettings.top_k,
        top_p: float = SamplingSettings.top_p,
        min_p: float = SamplingSettings.min_p,
        repetition_penalty: float = SamplingSettings.repetition_penalty,
        seed: int | None = SamplingSettings.seed,
        greedy: bool = SamplingSettings.greedy,
        stop: str | Sequence[str] = SamplingSettings.stop,
        ignore_eos: bool = SamplingSettings.ignore_eos,
        allow_unknown: bool = SamplingSettings.allow_unknown,
        **unknown: Never,
    ) -> str:
        """Continues `prompt`; returns the prompt and the new text. The defaults are those of `acorn generate`.

        Args:
            max_new_tokens, temperature, ...: see `SamplingSettings`.
            unknown: catches unknown settings, so that the error can suggest the right name.

        Raises:
            UsageError: a setting is unknown or invalid, or the prompt is not a string.
            InputError: the prompt cannot be encoded.
            DamageError: the model's logits are not finite.
        """
        if not isinstance(prompt, str):
            raise UsageError(
                f"A prompt cannot be {shown(prompt)}.", where="prompt", fix="give a string; `generations` takes several"
            )
        settings = SamplingSettings(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            greedy=greedy,
            stop=cast(tuple[str, ...], stop),  # converted by SamplingSettings
            ignore_eos=ignore_eos,
            allow_unknown=allow_unknown,
            **unknown,
        )
        return self.generations(prompt, settings)[0].text

    def generations(
        self, prompts: str | Sequence[str], settings: SamplingSettings | None = None, **changes: Any
    ) -> list[Generation]:
        """Continues several prompts at once; each result has its ids, finish reason and timing.

        Args:
            prompts: a single one is the same as a list of one.
            settings: sampling settings; None: the defaults.
            changes: single settings, which override those in `settings`.

        Raises:
            UsageError, InputError, DamageError: see `generate`.
        """
        settings = SamplingSettings() if settings is None else settings
        if not isinstance(settings, SamplingSettings):
            raise UsageError(
                f"The settings cannot be {shown(settings)}.",
                where="settings",
                fix="give acorn.SamplingSettings(...), or settings by name, such as top_k=5",
            )
        settings = dataclasses.replace(settings, **changes)
        return generate(
            self.model, self.tokenizer, prompts, settings, end_ids=self.end_ids, trained_ids=self.trained_ids
        )


@read_errors()
def pretrain(
    config: str | Path,
    overrides: str | Sequence[str] = (),
    out: str | Path | None = None,
    *,
    resume: bool = False,
    quiet: bool = False,
    **unknown: Never,
) -> Run:
    """Trains a model, as `acorn pretrain` does.

    Args:
        config: the name of a preset, or a TOML file.
        overrides: `key=value` settings; a single one is the same as a list of one.
        out: the run folder; None: runs/<name>.
        resume: start or resume the run in `out`.
        quiet: show no progress on stderr.
        unknown: catches unknown arguments, so that the error can suggest the right name.

    Raises:
        AcornError: the run cannot start or failed; `exit_code` is that of `acorn pretrain`.
    """
    _refuse_unknown(unknown, ("config", "overrides", "out", "resume", "quiet"))
    resolved = load_config(config, overrides)
    folder = Path("runs") / resolved.name if out is None else path_named(out, "out")
    check_links(folder, "out")
    if quiet:
        return training.pretrain(resolved, folder, resume=resume)
    screen = Screen()
    progress, line = TaskProgress(screen), TrainingLine(resolved.train.steps, screen)
    with contextlib.closing(progress), contextlib.closing(line):
        return training.pretrain(resolved, folder, resume=resume, watcher=line, progress=progress)


def load(run: str | Path, checkpoint: str | None = None, device: str = "cpu", **unknown: Never) -> LanguageModel:
    """Loads a run folder (its final model, otherwise its newest checkpoint), a checkpoint or a model folder.

    Args:
        checkpoint: of a run folder: "last", "best" or a step, instead of the final model.
        device: auto, cpu, cuda, cuda:1 (the second of several) or mps.
        unknown: catches unknown arguments, so that the error can suggest the right name.

    Raises:
        AcornError: the model cannot be loaded, or the device is unavailable.
    """
    _refuse_unknown(unknown, ("run", "checkpoint", "device"))
    loaded = load_model(run, checkpoint, device_for(device))
    return LanguageModel(loaded.model, loaded.tokenizer, loaded.end_ids, loaded.trained_ids)


def _refuse_unknown(unknown: Iterable[str], known: Sequence[str]) -> None:
    """Refuses named arguments that a function does not have, and suggests the nearest one.

    Raises:
        UsageError: there are some.
    """
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=1)
        raise UsageError(
            f"There is no argument {name!r}" + (f"; did you mean {near[0]}?" if near else "."),
            where=name,
            fix=f"the arguments are {', '.join(known)}",
        )


def _source_names(sources: object) -> list[str]:
    """Text sources in the form of `data.source`.

    Raises:
        UsageError: `sources` is not a string, a path or a list of these.
    """
    listed = [sources] if isinstance(sources, str | os.PathLike) else sources
    if not isinstance(listed, Iterable) or isinstance(listed, bytes | Mapping):
        raise UsageError(
            f"The sources cannot be {shown(sources)}.", where="sources", fix="give paths, or a list of them"
        )
    names = [os.fspath(name) if isinstance(name, os.PathLike) else name for name in listed]
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise UsageError(f"A source cannot be {shown(wrong[0])}.", where="sources", fix="give strings or paths")
    return names


def _strings(texts: object) -> Iterator[str]:
    """Yields the texts; a single one is the same as a list of one.

    Raises:
        UsageError: `texts` is not a string or strings.
    """
    if not isinstance(texts, Iterable) or isinstance(texts, bytes | Mapping):
        raise UsageError(
            f"The texts cannot be {shown(texts)}.", where="texts", fix="give a string, or a list of strings"
        )
    for text in [texts] if isinstance(texts, str) else texts:
        if not isinstance(text, str):
            raise UsageError(f"A text cannot be {shown(text)}.", where="texts", fix="give strings")
        yield text
