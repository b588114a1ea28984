"""Tests of the selection of a device."""

import pytest
import torch

from talkinghead.errors import UsageError
from talkinghead.runtime.device import cpu_autocast, resolve_device, resolve_precision


@pytest.mark.parametrize(
    ("has_cuda", "has_mps", "expected"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_selects_the_gpu_of_the_machine(monkeypatch, has_cuda, has_mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has_mps)
    assert resolve_device("auto").type == expected


def test_full_precision_on_a_mac_and_on_a_cpu():
    assert resolve_precision("auto", torch.device("mps")) is None
    assert resolve_precision("auto", torch.device("cpu")) is None


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="needs a machine without mps")
def test_missing_device_is_refused_with_the_alternatives():
    with pytest.raises(UsageError, match="device=mps cannot be used here: choose auto, cpu"):
        resolve_device("mps")


@pytest.mark.parametrize(("capability", "enabled"), [("AVX512", True), ("AVX2", False)])
def test_training_on_a_cpu_uses_bfloat16_only_if_it_is_fast(monkeypatch, capability, enabled):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    with cpu_autocast():
        assert torch.is_autocast_enabled("cpu") is enabled
