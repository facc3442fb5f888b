"""Runs another runtime in a separate process, so that a crash there does not end acorn.

    python -m acorn.export.worker FOLDER

FOLDER contains question.json (see `Question` in runtimes.py); answer.json and logits.safetensors are written there.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

QUESTION, ANSWER, LOGITS = "question.json", "answer.json", "logits.safetensors"

Logits = NDArray[np.float32]


class Model(Protocol):
    """The operations of a loaded model that the check needs."""

    def tokens(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, encoded as a prompt."""

    def logits(self, ids: list[int]) -> Logits:
        """Logits (T, V) of every position of one window."""

    def likeliest(self, prompt: list[int], ids: list[int]) -> list[int]:
        """The most likely token at the position of each of `ids`, which follow `prompt` and are read one by one into a
        cache."""


class Transformers:
    """A Hugging Face folder in transformers; it computes in fp32 with the stored weights."""

    package = "transformers"

    def __init__(self, path: str, longest: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._torch = torch
        self._tokenizer = AutoTokenizer.from_pretrained(path)
        self._model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()

    def tokens(self, texts: list[str]) -> list[list[int]]:
        return list(self._tokenizer(texts)["input_ids"])

    def logits(self, ids: list[int]) -> Logits:
        return self._step(ids, None)[0]

    def likeliest(self, prompt: list[int], ids: list[int]) -> list[int]:
        logits, cache = self._step(prompt, None)
        found = [int(logits[-1].argmax())]
        for id_ in ids[:-1]:
            logits, cache = self._step([id_], cache)
            found.append(int(logits[-1].argmax()))
        return found

    def _step(self, ids: list[int], cache: Any) -> tuple[Logits, Any]:
        with self._torch.no_grad():
            out = self._model(self._torch.tensor([ids]), past_key_values=cache, use_cache=True)
        return out.logits[0].numpy(), out.past_key_values


class TransformersClassifier:
    """A Hugging Face folder with a label head in transformers; it computes in fp32 with the stored weights."""

    package = "transformers"
    batch_size = 16

    def __init__(self, path: str, reader: str) -> None:
        import torch
        import transformers

        kinds = {
            "sequence": transformers.AutoModelForSequenceClassification,
            "token": transformers.AutoModelForTokenClassification,
        }
        self._torch, self._reader = torch, reader
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        self._model = kinds[reader].from_pretrained(path, dtype=torch.float32).eval()

    def tokens(self, texts: list[str]) -> list[list[int]]:
        return list(self._tokenizer(texts)["input_ids"])

    def outputs(self, windows: list[list[int]]) -> list[Logits]:
        """Outputs of the label head for each window, (1, L) or of a tagger (T, L), computed in padded batches."""
        found: list[Logits] = []
        for begin in range(0, len(windows), self.batch_size):
            batch = windows[begin : begin + self.batch_size]
            padded = self._tokenizer.pad({"input_ids": batch}, return_tensors="pt")
            with self._torch.no_grad():
                outputs = self._model(**padded).logits.numpy()
            rows = [range(1) if self._reader == "sequence" else range(len(ids)) for ids in batch]
            found += [np.atleast_2d(output)[list(chosen)] for output, chosen in zip(outputs, rows, strict=True)]
        return found


class LlamaCpp:
    """A GGUF file in llama.cpp through its Python binding, with keys and values in fp32."""

    package = "llama-cpp-python"

    def __init__(self, path: str, longest: int) -> None:
        import llama_cpp.llama_cpp as library
        from llama_cpp import Llama

        defaults = library.llama_model_default_params

        def plain_weights() -> Any:
            """Parameters that do not repack the weights for instructions of this CPU.

            Repacking for AMX crashes in builds of 2026: the compiler drops most of the tile configuration (llama.cpp
            issue 20824). Such a crash would say nothing about the file.
            """
            settings = defaults()
            settings.use_extra_bufts = False
            return settings

        library.llama_model_default_params = plain_weights
        self._model = Llama(
            path, n_ctx=longest, n_batch=longest, logits_all=True, type_k=FP32, type_v=FP32, verbose=False
        )

    def tokens(self, texts: list[str]) -> list[list[int]]:
        return [self._model.tokenize(text.encode(), add_bos=True, special=True) for text in texts]

    def logits(self, ids: list[int]) -> Logits:
        self._model.reset()
        self._model.eval(ids)
        return np.array(self._model.scores[: len(ids)], dtype=np.float32)

    def likeliest(self, prompt: list[int], ids: list[int]) -> list[int]:
        found = [int(self.logits(prompt)[-1].argmax())]
        for id_ in ids[:-1]:
            self._model.eval([id_])
            found.append(int(self._model.scores[self._model.n_tokens - 1].argmax()))
        return found


FP32 = 0
"""GGML's code for the type; the default type of keys and values is fp16."""

MODELS: dict[str, type[Transformers] | type[LlamaCpp]] = {"transformers": Transformers, "llama.cpp": LlamaCpp}


def main(folder: Path) -> None:
    """Answers the question in `folder`."""
    question = json.loads((folder / QUESTION).read_bytes())
    windows = question["windows"]
    if question["reader"]:
        classifier = TransformersClassifier(question["model"], question["reader"])
        package, tokens, likeliest = classifier.package, classifier.tokens(question["texts"]), []
        logits = classifier.outputs(windows)
    else:
        kind = MODELS[question["runtime"]]
        model: Model = kind(question["model"], question["longest"])
        package, tokens = kind.package, model.tokens(question["texts"])
        likeliest = [model.likeliest(prompt, ids) for prompt, ids in question["continuations"]]
        logits = [model.logits(ids) for ids in windows]
    answer = {"version": importlib.metadata.version(package), "tokens": tokens, "likeliest": likeliest}
    save_file({str(number): found for number, found in enumerate(logits)}, folder / LOGITS)
    (folder / ANSWER).write_text(json.dumps(answer), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
