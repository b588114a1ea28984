"""Select the device and the numeric precision."""

from __future__ import annotations

import torch

from talkinghead.errors import UsageError

PRECISIONS = ("auto", "32", "16-mixed", "bf16-mixed")


def resolve_device(name: str) -> torch.device:
    """Return the device with a given name; "auto" selects a GPU if there is one, else the CPU.

    A GPU is a CUDA device or, on a Mac, "mps".

    Raises:
        UsageError: The device does not exist.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"device={name} cannot be used here: choose auto, cpu, cuda where there is a GPU, or "
            "mps on a Mac"
        ) from error
    return device


def resolve_precision(name: str, device: torch.device) -> torch.dtype | None:
    """Return the autocast dtype for a precision, or None for full precision.

    Raises:
        UsageError: The precision is unknown, or the device does not support it.
    """
    if name not in PRECISIONS:
        raise UsageError(f"precision={name} is unknown: choose one of {', '.join(PRECISIONS)}")
    if name == "auto":
        if device.type != "cuda":
            return None
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float16
    if name == "16-mixed" and device.type == "cpu":
        raise UsageError(
            "precision=16-mixed needs a GPU, but the device is the CPU: choose precision=32"
        )
    return {"32": None, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}[name]


def cpu_autocast() -> torch.autocast:
    """Return mixed precision with bfloat16 for training on a CPU.

    It changes nothing without AVX-512, where bfloat16 is emulated and many times slower.
    """
    is_fast = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return torch.autocast("cpu", torch.bfloat16, enabled=is_fast)
