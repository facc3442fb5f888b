"""The original's recipe on real text for a given time: AdamW with a constant learning rate of 5e-4, random windows,
fp32.

Without its dropout, which makes training slower and does not help in the first epochs, so that the comparison is with
the original at its best. Validation does not count as training time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.contenders.answering import Answers, peak_bytes, specification
from benchmarks.contenders.original_model import OriginalModel

BATCH_SIZE = 16


def main() -> None:
    spec = specification()
    answers = Answers()
    torch.manual_seed(0)
    device = spec["device"]
    train, valid = (torch.from_numpy(np.load(spec[split]).astype(np.int64)) for split in ("train", "valid"))
    valid = valid.to(device)
    model = OriginalModel(**spec["original_model"]).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    length = model.block_size
    answers.send({"ready": True})
    trained, tokens, curve = 0.0, 0, []
    while answers.next_count():  # each unit: `every` seconds of training and one validation
        begin, before = time.perf_counter(), tokens
        while time.perf_counter() - begin < spec["every"]:
            starts = torch.randint(len(train) - length, (BATCH_SIZE,)).tolist()
            ids = torch.stack([train[start : start + length] for start in starts])
            targets = torch.stack([train[start + 1 : start + length + 1] for start in starts])
            loss = model.loss(ids.to(device), targets.to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            tokens += ids.numel()
        loss.item()  # synchronizes with the GPU
        seconds = time.perf_counter() - begin
        trained += seconds
        curve.append([trained, tokens, validate(model.loss, valid, length)])
        answers.send({"seconds": seconds, "tokens": tokens - before, "peak_bytes": peak_bytes(device), "curve": curve})


@torch.no_grad()
def validate(loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], valid: torch.Tensor, length: int) -> float:
    """Mean loss over the covered split in consecutive windows that do not overlap, in nats per token.

    Args:
        loss_of: (ids, targets) -> mean loss.
    """
    total = 0.0
    for begin in range(0, len(valid) - 1, length * BATCH_SIZE):
        part = valid[begin : begin + length * BATCH_SIZE + 1]
        covered = (len(part) - 1) // length * length
        if covered:
            total += loss_of(part[:covered].view(-1, length), part[1 : covered + 1].view(-1, length)).item() * covered
        if covered < len(part) - 1:
            total += loss_of(part[None, covered:-1], part[None, covered + 1 :]).item() * (len(part) - 1 - covered)
    return total / (len(valid) - 1)


if __name__ == "__main__":
    main()
