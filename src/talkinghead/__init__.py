"""Lip-sync for real faces: train it with PyTorch Lightning and Hydra, ship it as a predictor.

The names below are imported when they are first used, so that `import talkinghead` is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from talkinghead.errors import TalkingHeadError
    from talkinghead.live.streaming import RealtimeFrame, RealtimeLipSync
    from talkinghead.predict.avatar import Avatar
    from talkinghead.predict.predictor import LipSyncPredictor
    from talkinghead.predict.source.source_frame import SourceOptions
    from talkinghead.speech.conversation import Conversation
    from talkinghead.types import AudioClip

__all__ = [
    "AudioClip",
    "Avatar",
    "Conversation",
    "LipSyncPredictor",
    "RealtimeFrame",
    "RealtimeLipSync",
    "SourceOptions",
    "TalkingHeadError",
]
__version__ = "0.1.0"

_MODULES = {
    "AudioClip": "types",
    "Avatar": "predict.avatar",
    "Conversation": "speech.conversation",
    "LipSyncPredictor": "predict.predictor",
    "RealtimeFrame": "live.streaming",
    "RealtimeLipSync": "live.streaming",
    "SourceOptions": "predict.source.source_frame",
    "TalkingHeadError": "errors",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names and those of the module."""
    return sorted({*globals(), *__all__})
