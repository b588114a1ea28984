"""Speed options change neither results nor parameter names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.tiny_training import GENERATOR, SPEC

from talkinghead.models.checkpoint import build
from talkinghead.training.parallel.acceleration import SpeedOptions


def gradients(options: SpeedOptions) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model: Any = build("generator", GENERATOR, SPEC)
    options.apply(model)
    windows = model.context_frames + 2 + model.lookahead_frames
    inputs = (
        torch.rand(2, 3, SPEC.face_size, SPEC.face_size),
        100 + 60 * torch.rand(2, 20, 2),
        torch.rand(2, 2, 3, 80, 80),
        torch.randn(2, windows, 80, 16),
    )
    output = model(*inputs)
    (output.mouth.square().mean() + output.motion.square().mean()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "options",
    [
        {"channels_last": True},
        {"checkpoint_activations": True},
        pytest.param({"compile": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_gradients_are_unchanged(options: dict[str, bool]) -> None:
    plain, accelerated = gradients(SpeedOptions()), gradients(SpeedOptions(**options))
    assert plain.keys() == accelerated.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(accelerated[name], gradient, atol=1e-6, rtol=1e-3)


def test_checkpointed_activations_are_not_stored() -> None:
    def kept(options: SpeedOptions) -> int:
        numbers = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal numbers
            numbers += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            torch.manual_seed(0)
            model: Any = build("generator", GENERATOR, SPEC)
            options.apply(model)
            model(
                torch.rand(1, 3, 160, 160),
                100 + 60 * torch.rand(1, 20, 2),
                torch.rand(1, 4, 3, 80, 80),
                torch.randn(1, model.context_frames + 4 + model.lookahead_frames, 80, 16),
            )
        return numbers

    assert kept(SpeedOptions(checkpoint_activations=True)) < 0.7 * kept(SpeedOptions())


def test_compile_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    from talkinghead.errors import DependencyError

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(DependencyError, match=r"apt install g\+\+"):
        SpeedOptions(compile=True).apply(build("generator", GENERATOR, SPEC))
