"""The head that reads and writes the lip motion of tokens."""

import torch

from talkinghead.models.lipsync.lip_head import LipHead


def test_motion_that_is_set_is_read_also_after_a_training_step():
    torch.manual_seed(0)
    head, tokens, lips = LipHead(64), torch.randn(3, 5, 64), torch.randn(3, 5, 20, 2)
    assert torch.equal(head(tokens), torch.zeros_like(lips))
    assert torch.equal(head.set_motion(tokens, lips), tokens)  # All weights are still 0.
    for _ in range(2):
        torch.nn.init.normal_(head.weight)
        with torch.inference_mode():
            assert torch.allclose(head(head.set_motion(tokens, lips)), lips, atol=1e-3)
        half = head.set_motion(tokens, lips, 0.5)
        assert torch.allclose(head(half), (head(tokens) + lips) / 2, atol=1e-3)


def test_tokens_with_unknown_lips_are_unchanged_and_gradients_flow():
    head = LipHead(64)
    torch.nn.init.normal_(head.weight)
    tokens, lips = torch.randn(2, 64, requires_grad=True), torch.zeros(2, 20, 2)
    lips[0] = torch.nan
    with torch.inference_mode():
        head.set_motion(tokens, lips)  # Keeps the inverse, which training uses next.
    changed = head.set_motion(tokens, lips)
    assert torch.equal(changed[0], tokens[0])
    changed.square().sum().backward()
    assert tokens.grad.isfinite().all()


def test_inverse_is_computed_once_for_each_weight(monkeypatch):
    head, calls = LipHead(64), []
    torch.nn.init.normal_(head.weight)
    inverse = torch.linalg.pinv
    monkeypatch.setattr(torch.linalg, "pinv", lambda weight: calls.append(1) or inverse(weight))
    for _ in range(3):
        head.set_motion(torch.zeros(1, 64), torch.zeros(1, 20, 2))
    assert len(calls) == 1


def test_inverse_has_the_precision_of_the_weight():
    torch.manual_seed(0)
    head, tokens, lips = LipHead(64), torch.randn(3, 64), torch.randn(3, 20, 2)
    torch.nn.init.normal_(head.weight)
    with torch.autocast("cpu", torch.bfloat16):
        head.set_motion(tokens, lips)
    assert torch.allclose(head(head.set_motion(tokens, lips)), lips, atol=1e-3)
    head.double()
    tokens, lips = tokens.double(), lips.double()
    assert torch.allclose(head(head.set_motion(tokens, lips)), lips, atol=1e-9)
