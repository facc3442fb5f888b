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
from acorn.errors import AcornError, InputError, UsageError, shown
from acorn.evaluate.predict import TEXTS_AT_ONCE, Prediction, predict
from acorn.evaluate.predict_tags import predict_tags
from acorn.files import check_links, path_named, read_errors
from acorn.generate.engine import Generation, generate
from acorn.generate.settings import SamplingSettings
from acorn.model.gpt import GPT
from acorn.model.sizing import size_of
from acorn.report.terminal import Screen, TaskProgress, TrainingLine
from acorn.run import finetune as finetuning
from acorn.run import pretrain as training
from acorn.run.finetune_config import finetune_config
from acorn.run.lifecycle import RunResult as Run
from acorn.runtime.choose import device_for, runtime_for_inference
from acorn.text.splits import TextSplits
from acorn.tokenizer import tokenizer as tokenizers
from acorn.tokenizer.label_text import LabelText
from acorn.tokenizer.measuring import TokenizerReport, measure
from acorn.tokenizer.training import train
from acorn.tokenizer.word_text import WordText

__all__ = [
    "AcornError",
    "LanguageModel",
    "Prediction",
    "Run",
    "SamplingSettings",
    "Tokenizer",
    "finetune",
    "load",
    "pretrain",
]

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
        task: `classify`, `regress` or `tag` where it gives labels, values or tags (`predict`); empty where it
            continues text (`generate`).
        labels: names of its labels, in the order of the network's outputs; empty where it continues text.
    """

    def __init__(
        self,
        model: GPT,
        tokenizer: tokenizers.Tokenizer,
        end_ids: Sequence[int] = (),
        trained_ids: Sequence[int] = (),
        *,
        task: str = "",
        labels: Sequence[str] = (),
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.end_ids, self.trained_ids = tuple(end_ids), tuple(trained_ids)
        self.task, self.labels = task, tuple(labels)

    def __repr__(self) -> str:
        config = self.model.config
        return (
            f"<acorn.LanguageModel: {config.architecture}, {counted(config.n_layer, 'layer')} of width "
            f"{config.n_embd:,}, {size_of(config, self.model.head_spec).parameters:,} parameters, "
            f"context {config.block_size:,}, "
            f"{self.tokenizer.kind} of {self.tokenizer.vocab_size:,}, "
            + (f"task {self.task}, " if self.task else "")
            + f"on {self.model.device}>"
        )

    def predict(self, texts: str | Iterable[str] | Iterable[Sequence[str]]) -> list[Prediction]:
        """Predicts the label or value of each text, or the tags of its words, as `acorn predict` does, in the order of
        the texts.

        Of a text that is longer than the model's context, the beginning is read, and `cut` of its prediction is true. A
        tagger reads sentences whole: a longer one is refused.

        Args:
            texts: a single one is the same as a list of one. For a tagger, each is a list of words, or a text that is
                split into words at white space.

        Raises:
            UsageError: the model continues text, or `texts` is of another type.
            InputError: a text is empty, or cannot be encoded; or a sentence is longer than the context.
            DamageError: the model's outputs are not finite.
        """
        if not self.task:
            raise UsageError(
                "The model continues text; it gives no labels, values or tags.",
                where="predict",
                fix="use generate, or load a model that acorn.finetune made for the task classify, regress or tag",
            )
        if self.task == "tag":
            return self._tags(texts)
        given = list(_strings(texts))
        if blank := [number for number, text in enumerate(given) if not text or text.isspace()]:
            raise InputError("A text is empty.", where=f"texts[{blank[0]}]", fix="leave it out")
        runtime = runtime_for_inference(self.model.device.type, "fp32")
        text = LabelText(self.tokenizer, as_it_is=True)
        found: list[Prediction] = []
        for begin in range(0, len(given), TEXTS_AT_ONCE):
            some = given[begin : begin + TEXTS_AT_ONCE]
            found += predict(self.model, text, self.labels, some, runtime)
        return found

    def _tags(self, texts: object) -> list[Prediction]:
        """The tags of the words of each sentence; see `predict`."""
        sentences = list(_sentences(texts))
        places = [f"texts[{number}]" for number in range(len(sentences))]
        runtime = runtime_for_inference(self.model.device.type, "fp32")
        text = WordText(self.tokenizer, as_it_is=True)
        found: list[Prediction] = []
        for begin in range(0, len(sentences), TEXTS_AT_ONCE):
            part = slice(begin, begin + TEXTS_AT_ONCE)
            found += predict_tags(self.model, text, self.labels, sentences[part], places[part], runtime)
        return found

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
        **unknown: Never,  # so that the error for a misspelled setting can suggest the right name
    ) -> str:
        """Continues `prompt`; returns the prompt and the new text. The defaults are those of `acorn generate`.

        Args:
            max_new_tokens, temperature, ...: see `SamplingSettings`.

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
        if self.task:
            raise UsageError(
                "The model gives labels or values; it does not generate text.",
                where="generate",
                fix="use predict, or load a model that continues text",
            )
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


def finetune(
    model: str | Path,
    data: Source | Sequence[Source],
    out: str | Path,
    *,
    task: Literal["auto", "chat", "complete", "classify", "regress", "tag"] = "auto",
    valid: Source | Sequence[Source] = (),
    test: Source | Sequence[Source] = (),
    lora: int = 0,
    overrides: str | Sequence[str] = (),
    resume: bool = False,
    quiet: bool = False,
) -> Run:
    """Finetunes a model on examples of a task, as `acorn finetune` does.

    Args:
        model: the run, checkpoint or model folder to start from, or `hf:OWNER/NAME`.
        data, valid, test: rows of each side: files, globs, folders or `hf:...`; a single one means a list of one.
            Without validation rows, a share of the training rows is held out.
        out: the run folder.
        task: `auto`: by the columns of the rows.
        lora: rank of the adapters to train instead of all weights; 0: none.
        overrides: `key=value` settings; a single one is the same as a list of one.
        resume: start or resume the run in `out`.
        quiet: show no progress on stderr.

    Raises:
        AcornError: the run cannot start or failed; `exit_code` is that of `acorn finetune`.
    """
    config = finetune_config(
        os.fspath(path_named(model, "model")),
        _source_names(data),
        valid=_source_names(valid),
        test=_source_names(test),
        task=task,
        lora=lora,
        overrides=overrides,
    )
    folder = path_named(out, "out")
    if quiet:
        return finetuning.finetune(config, folder, resume=resume)
    screen = Screen()
    progress, line = TaskProgress(screen), TrainingLine(config.train.steps, screen)
    with contextlib.closing(progress), contextlib.closing(line):
        return finetuning.finetune(config, folder, resume=resume, watcher=line, progress=progress)


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
    return LanguageModel(
        loaded.model,
        loaded.tokenizer,
        loaded.end_ids,
        loaded.trained_ids,
        task=loaded.task,
        labels=loaded.labels if loaded.task != "regress" else (),
    )


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


def _sentences(texts: object) -> Iterator[list[str]]:
    """Yields the words of each sentence, which is a list of words, or a string that is split at white space; a single
    string is the same as a list of one.

    Raises:
        UsageError: `texts` is of another type.
        InputError: a sentence is empty, or a word is empty or has white space in it.
    """
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        texts = _strings(texts)
    for number, sentence in enumerate(texts):
        if not isinstance(sentence, list | tuple):
            sentence = next(_strings([sentence])).split()
        words = list(_strings(sentence))
        where = f"texts[{number}]"
        if not words:
            raise InputError("A sentence is empty.", where=where, fix="leave it out")
        if wrong := [word for word in words if word.split() != [word]]:
            raise InputError(
                f"{shown(wrong[0])} is not one word.",
                where=where,
                fix="give words that are not empty, without white space",
            )
        yield words
