"""Device and precision: the requested ones, or those that suit the hardware."""

from __future__ import annotations

import pytest
import torch

from acorn.errors import UsageError
from acorn.runtime.choose import choose_device, choose_precision, device_for, runtime_for_inference


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_unavailable_devices_are_refused(no_gpu) -> None:
    with pytest.raises(UsageError, match="cuda is unavailable") as caught:
        choose_device("cuda")
    assert "cpu" in caught.value.fix
    with pytest.raises(UsageError, match="There is no device 'tpu'"):
        runtime_for_inference("tpu", "auto")


def test_auto_takes_the_best_available_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        choice = choose_device("auto")
        assert (choice.value, choice.asked) == (expected, False)
        assert choose_device("cpu").asked


@pytest.mark.parametrize(
    ("wanted", "has_bf16", "lacking", "remark"),
    [
        ("fp32", False, "no compiler", ""),
        ("bf16", True, "no compiler", ""),
        ("bf16", False, "no compiler", "but the hardware only emulates it, which is slow"),
        ("fp16", True, None, ""),
        ("fp16", True, "no compiler", "with PyTorch's matmuls, which are no faster than fp32 on a CPU: no compiler"),
    ],
)
def test_a_requested_precision_is_used_with_a_remark_if_it_is_slow(
    monkeypatch: pytest.MonkeyPatch, wanted: str, has_bf16: bool, lacking: str | None, remark: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_bf16})
    choice = choose_precision("cpu", wanted, lacking)
    assert (choice.value, choice.asked, choice.reason) == (wanted, True, remark)


def test_inference_on_a_cpu_is_in_fp32(no_gpu) -> None:
    for wanted, expected, asked in (("auto", "fp32", False), ("int8", "fp32", False), ("bf16", "bf16", True)):
        runtime = runtime_for_inference("auto", wanted)
        assert (runtime.precision, runtime.compile) == (expected, False)
        assert [choice.asked for choice in runtime.choices] == [False, asked]


def test_an_unavailable_device_is_reported_where_it_was_set(no_gpu) -> None:
    """In the option of a command for inference, which has no train.device; for training in that setting."""
    for device in ("cuda", "mps"):
        with pytest.raises(UsageError, match="is unavailable") as caught:
            runtime_for_inference(device, "auto")
        assert caught.value.where == "--device"
        with pytest.raises(UsageError, match="is unavailable") as caught:
            choose_device(device)
        assert caught.value.where == "train.device"
        with pytest.raises(UsageError, match="is unavailable") as caught:
            device_for(device)
        assert caught.value.where == "device"


@pytest.mark.parametrize("name", ["", "tpu", "cuda:x", "meta", "xla", "CPU", None, 0, 5, ["cpu"]])
def test_an_unknown_device_is_refused(no_gpu, name: object) -> None:
    with pytest.raises(UsageError, match="There is no device") as caught:
        device_for(name)
    assert "auto, cpu, cuda" in caught.value.fix


def test_python_accepts_pytorchs_device_names(no_gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cpu", "cpu:0", torch.device("cpu"), "auto"):
        assert device_for(name).type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    assert [str(device_for(name)) for name in ("auto", "cuda", "cuda:1")] == ["cuda", "cuda", "cuda:1"]
    with pytest.raises(UsageError, match="cuda:2 is unavailable") as caught:
        device_for("cuda:2")
    assert "cuda:0 to cuda:1" in caught.value.fix
