"""Combination of a generator and a sync discriminator with different audio features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_training import EXPERT, GENERATOR, fit, make_data, make_module

from talkinghead.errors import UsageError


def joint_module(generator: list[str], sync: list[str], **options: Any) -> Any:
    return make_module(
        generator={**GENERATOR, "audio_features": generator},
        sync_discriminator="joint",
        sync_arguments={**EXPERT, "audio_features": sync},
        loss={"weights": {"l1": 1.0, "sync": 1.0}},
        **options,
    )


def test_sync_discriminator_with_unused_features_is_refused() -> None:
    with pytest.raises(UsageError, match="needs the audio features prosody, which the generator"):
        joint_module(["mfcc"], ["mel", "prosody"])


def test_sync_discriminator_uses_a_part_of_the_generators_features(corpus: Path) -> None:
    module = joint_module(["prosody", "mfcc"], ["mel"], max_iterations=1)
    trainer = fit(module, make_data(corpus, module))
    assert trainer.callback_metrics["train/generator/sync"] > 0
