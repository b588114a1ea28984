"""Answer typed questions with talking videos, offline.

    python examples/conversation.py photo.jpg answers/ "Hello." "How are you?"

`Echo` repeats the question; use `Llama` or `OpenAIChat` for answers (docs/speech.md).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from talkinghead import Conversation, LipSyncPredictor
from talkinghead.speech.llm.echo import Echo
from talkinghead.speech.tts.piper import Piper
from talkinghead.speech.voice import Voice


def main() -> None:
    """Read the command line and write a video for each question."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo")
    parser.add_argument("output", type=Path)
    parser.add_argument("question", nargs="+")
    arguments = parser.parse_args()

    avatar = LipSyncPredictor.from_checkpoint("default").avatar(arguments.photo)
    conversation = Conversation(avatar, Echo("You said: {}"), Voice(Piper()))
    for number, question in enumerate(arguments.question, start=1):
        output = arguments.output / f"answer_{number}.mp4"
        report = conversation.answer_text(question, output)
        if report.error is not None:
            raise report.error
        print(f"{output}:", *(sentence.text for sentence in report.reply))


if __name__ == "__main__":
    main()
