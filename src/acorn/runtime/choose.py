"""Device and precision as they are asked for or as the hardware decides, for every command; nothing is measured.

What only a training run decides is in run/resolve.py.
"""

from __future__ import annotations

import torch

from acorn.errors import UsageError, shown
from acorn.runtime.device import Choice, Precision, Runtime, available_devices, multiplies_bf16, usable_cores

DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(wanted: str, where: str = "train.device") -> Choice[str]:
    """The device that is asked for, or that `auto` comes to.

    Args:
        where: the setting or option that asks, for the message.

    Raises:
        UsageError: it is unavailable here.
    """
    there = available_devices()
    if wanted != "auto":
        if wanted not in there:
            raise UsageError(
                f"The device {wanted} is not available here.",
                where=where,
                fix=f"choose one of {', '.join(there)}, or auto",
            )
        return Choice("device", wanted, True)
    if "cuda" in there:
        return Choice("device", "cuda", False, torch.cuda.get_device_name())
    if "mps" in there:
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
            f"The device {device} is not available here.",
            where="device",
            fix=f"this machine has cuda:0 to cuda:{torch.cuda.device_count() - 1}",
        )
    return device


def choose_precision(device: str, wanted: str, lacking: str | None) -> Choice[Precision]:
    """The precision that is asked for, or that `auto` comes to on a GPU.

    Args:
        lacking: why fp16 matmuls of fp32 tensors are unavailable; None: they are available.
    """
    has_bf16 = multiplies_bf16(device)
    if wanted == "auto":
        if has_bf16:
            return Choice("precision", "bf16", False, "the hardware multiplies it")
        if device == "cuda":
            return Choice("precision", "fp16", False, "this GPU has no bf16 products")
        return Choice("precision", "fp32", False, "no bf16 products in this hardware")
    remark = ""
    if wanted == "bf16" and not has_bf16:
        remark = "though this hardware only emulates it: expect it to be slow"
    elif wanted == "fp16" and device == "cpu" and lacking:
        remark = f"and PyTorch's own, which is no faster than fp32 on a CPU: {lacking}"
    return Choice("precision", wanted, True, remark)  # type: ignore[arg-type]


def check_device(device: str) -> None:
    """Refuses a device that is not there, before anything is measured.

    Raises:
        UsageError: the others are named.
    """
    choose_device(device)


def runtime_for_inference(device: str, precision: str) -> Runtime:
    """The runtime of a command that only reads a model: fp32 on a CPU unless asked otherwise, never compiled.

    Args:
        precision: `int8` is about weights, which the command rounds; it computes as with `auto`.

    Raises:
        UsageError: the device is unavailable here, or the device or precision is unknown.
    """
    precisions = ("auto", "fp32", "bf16", "fp16", "int8")
    for option, value, known in (("--device", device, DEVICES), ("--precision", precision, precisions)):
        if value not in known:
            raise UsageError(f"{value!r} is not known.", where=option, fix=f"choose one of {', '.join(known)}")
    where = choose_device(device, "--device")
    wanted = "auto" if precision == "int8" else precision
    if wanted == "auto" and where.value == "cpu":
        kind: Choice[Precision] = Choice("precision", "fp32", False, "the exact one; others may be asked for")
    else:
        kind = choose_precision(where.value, wanted, "only training has products of its own")
    return Runtime(where.value, kind.value, False, usable_cores(), True, (where, kind))
