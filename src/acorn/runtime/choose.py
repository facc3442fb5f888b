"""Chooses device and precision: the requested ones, or those that suit the hardware. Used by every command.

Nothing is measured here. What only a training run chooses is in run/resolve.py.
"""

from __future__ import annotations

import torch

from acorn.errors import UsageError, shown
from acorn.runtime.device import Choice, Precision, Runtime, available_devices, multiplies_bf16, usable_cores

DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(wanted: str, where: str = "train.device") -> Choice[str]:
    """The requested device, or the best available one for `auto`.

    Args:
        where: the setting or option, for the error message.

    Raises:
        UsageError: it is unavailable on this machine.
    """
    available = available_devices()
    if wanted != "auto":
        if wanted not in available:
            raise UsageError(
                f"The device {wanted} is unavailable on this machine.",
                where=where,
                fix=f"choose {' or '.join([*available, 'auto'])}",
            )
        return Choice("device", wanted, True)
    if "cuda" in available:
        return Choice("device", "cuda", False, torch.cuda.get_device_name())
    if "mps" in available:
        return Choice("device", "mps", False, "Apple GPU")
    return Choice("device", "cpu", False, "no GPU found")


def device_for(name: object) -> torch.device:
    """The device that a Python caller names: one of DEVICES, one of several such as `cuda:1`, or a torch.device.

    Raises:
        UsageError: the device is unknown or unavailable.
    """
    try:
        device = torch.device(name) if isinstance(name, str) and name != "auto" else name
    except RuntimeError:  # not a name that PyTorch knows
        device = None
    if name == "auto":
        return torch.device(choose_device("auto").value)
    if not isinstance(device, torch.device) or device.type not in DEVICES:
        raise UsageError(
            f"There is no device {shown(name)}.", where="device", fix="choose auto, cpu, cuda (or cuda:1, ...) or mps"
        )
    choose_device(device.type, "device")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"The device {device} is unavailable on this machine.",
            where="device",
            fix=f"this machine has cuda:0 to cuda:{torch.cuda.device_count() - 1}",
        )
    return device


def choose_precision(device: str, wanted: str, lacking: str | None) -> Choice[Precision]:
    """The requested precision, or the one for `auto` on a GPU.

    Args:
        lacking: why fp16 matmuls of fp32 tensors are unavailable; None: they are available.
    """
    has_bf16 = multiplies_bf16(device)
    if wanted == "auto":
        if has_bf16:
            return Choice("precision", "bf16", False, "the hardware has bf16 matmuls")
        if device == "cuda":
            return Choice("precision", "fp16", False, "this GPU has no bf16 matmuls")
        return Choice("precision", "fp32", False, "the hardware has no bf16 matmuls")
    remark = ""
    if wanted == "bf16" and not has_bf16:
        remark = "but the hardware only emulates it, which is slow"
    elif wanted == "fp16" and device == "cpu" and lacking:
        remark = f"with PyTorch's matmuls, which are no faster than fp32 on a CPU: {lacking}"
    return Choice("precision", wanted, True, remark)  # type: ignore[arg-type]


def check_device(device: str) -> None:
    """Checks that a device is available, before anything is measured.

    Raises:
        UsageError: it is unavailable; the error names the available ones.
    """
    choose_device(device)


def runtime_for_inference(device: str, precision: str) -> Runtime:
    """The runtime of a command that does not train: never compiled, and on a CPU in fp32 unless requested otherwise.

    Args:
        precision: `int8` applies to the weights, which the command quantizes; it computes as with `auto`.

    Raises:
        UsageError: the device is unavailable here, or the device or precision is unknown.
    """
    precisions = ("auto", "fp32", "bf16", "fp16", "int8")
    for option, value, known in (("--device", device, DEVICES), ("--precision", precision, precisions)):
        if value not in known:
            raise UsageError(
                f"There is no {option.removeprefix('--')} {value!r}.",
                where=option,
                fix=f"choose one of {', '.join(known)}",
            )
    where = choose_device(device, "--device")
    wanted = "auto" if precision == "int8" else precision
    if wanted == "auto" and where.value == "cpu":
        kind: Choice[Precision] = Choice("precision", "fp32", False, "the most exact; --precision chooses another")
    else:
        kind = choose_precision(where.value, wanted, "acorn's own fp16 matmuls are for training only")
    return Runtime(where.value, kind.value, False, usable_cores(), True, (where, kind))
