"""Lip-sync for real faces: training with PyTorch Lightning and Hydra, and inference.

This is the stable public API. The names are imported when they are first used, so that
`import talkinghead` is fast. With default options, the Python API and `talkinghead predict` give
the same frames.

Example:
    >>> from talkinghead import LipSyncPredictor, PredictOptions
    >>> predictor = LipSyncPredictor.from_checkpoint("default", PredictOptions(device="cpu"))
    >>> predictor.render("photo.jpg", "speech.wav", "talking.mp4")
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from talkinghead.errors import TalkingHeadError
    from talkinghead.live.avatar_loop import AvatarLoop
    from talkinghead.live.live_avatar import LiveAvatar, LiveFrame
    from talkinghead.live.pacing import FramePacer
    from talkinghead.live.streaming import RealtimeFrame, RealtimeLipSync
    from talkinghead.predict.audio.audio_source import SpeechStream
    from talkinghead.predict.audio.lip_priors.lip_prior import LipPrior
    from talkinghead.predict.audio.speaker_style import SpeakerStyle
    from talkinghead.predict.avatar import Avatar
    from talkinghead.predict.compositing.renderers import Renderer
    from talkinghead.predict.options import EncodeOptions, PredictOptions, SourceOptions
    from talkinghead.predict.output.provenance import Provenance
    from talkinghead.predict.prediction import Prediction, RenderReport
    from talkinghead.predict.predictor import LipSyncPredictor
    from talkinghead.speech.conversation import Conversation
    from talkinghead.types import AudioClip

__all__ = [
    "AudioClip",
    "Avatar",
    "AvatarLoop",
    "Conversation",
    "EncodeOptions",
    "FramePacer",
    "LipPrior",
    "LipSyncPredictor",
    "LiveAvatar",
    "LiveFrame",
    "PredictOptions",
    "Prediction",
    "Provenance",
    "RealtimeFrame",
    "RealtimeLipSync",
    "RenderReport",
    "Renderer",
    "SourceOptions",
    "SpeakerStyle",
    "SpeechStream",
    "TalkingHeadError",
]
__version__ = "0.1.0"

# ONNX Runtime, gradio and Ray send usage data over the network, unless these variables are set
# before they are imported.
_NO_USAGE_DATA = {
    "ORT_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "RAY_USAGE_STATS_ENABLED": "0",
}
for _name, _value in _NO_USAGE_DATA.items():
    os.environ.setdefault(_name, _value)

_MODULES = {
    "AudioClip": "types",
    "Avatar": "predict.avatar",
    "AvatarLoop": "live.avatar_loop",
    "Conversation": "speech.conversation",
    "EncodeOptions": "predict.options",
    "FramePacer": "live.pacing",
    "LipPrior": "predict.audio.lip_priors.lip_prior",
    "LipSyncPredictor": "predict.predictor",
    "LiveAvatar": "live.live_avatar",
    "LiveFrame": "live.live_avatar",
    "PredictOptions": "predict.options",
    "Prediction": "predict.prediction",
    "Provenance": "predict.output.provenance",
    "RealtimeFrame": "live.streaming",
    "RealtimeLipSync": "live.streaming",
    "RenderReport": "predict.prediction",
    "Renderer": "predict.compositing.renderers",
    "SourceOptions": "predict.options",
    "SpeakerStyle": "predict.audio.speaker_style",
    "SpeechStream": "predict.audio.audio_source",
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
    """Return the names of the module, including public names that are not imported yet."""
    return sorted({*globals(), *__all__})
