"""The seed's recipe on real text for a given time: AdamW at a constant 5e-4, random windows, fp32.

Without its dropout, which costs a third of the speed and gains nothing in the first epochs: the stronger opponent.
Validation is not counted as training time.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from benchmarks.contenders.answering import Answers, peak_bytes, specification
from benchmarks.contenders.seed_model import SeedModel

BATCH_SIZE = 16


def main() -> None:
    spec = specification()
    answers = Answers()
    torch.manual_seed(0)
    train, valid = (torch.from_numpy(np.load(spec[split]).astype(np.int64)) for split in ("train", "valid"))
    model = SeedModel(**spec["seed_model"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    length = model.block_size
    answers.send({"ready": True})
    trained, tokens, curve = 0.0, 0, []
    while answers.next_count():  # each unit: `every` seconds of training and one validation
        begin = time.perf_counter()
        while time.perf_counter() - begin < spec["every"]:
            starts = torch.randint(len(train) - length, (BATCH_SIZE,)).tolist()
            ids = torch.stack([train[start : start + length] for start in starts])
            targets = torch.stack([train[start + 1 : start + length + 1] for start in starts])
            loss = model.loss(ids, targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            tokens += ids.numel()
        seconds = time.perf_counter() - begin
        trained += seconds
        curve.append([trained, tokens, validate(model, valid)])
        answers.send({"seconds": seconds, "tokens": tokens, "peak_bytes": peak_bytes(), "curve": curve})


@torch.no_grad()
def validate(model: SeedModel, valid: torch.Tensor) -> float:
    """Mean loss over the whole split, in windows side by side that do not overlap, nats per token."""
    length, total, count = model.block_size, 0.0, 0
    for begin in range(0, len(valid) - 1, length * BATCH_SIZE):
        part = valid[begin : begin + length * BATCH_SIZE + 1]
        for start in range(0, len(part) - 1, length):
            window = part[start : start + length + 1]
            total += model.loss(window[None, :-1], window[None, 1:]).item() * (len(window) - 1)
            count += len(window) - 1
    return total / count


if __name__ == "__main__":
    main()
