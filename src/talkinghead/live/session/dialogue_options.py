"""Options of a live dialogue."""

from __future__ import annotations

from dataclasses import dataclass

from talkinghead.speech.conversation import DEFAULT_SYSTEM_PROMPT
from talkinghead.value_rules import NonNegativeInt, PositiveFloat, PositiveInt


@dataclass(frozen=True)
class DialogueOptions:
    """Options of a live dialogue.

    Attributes:
        system_prompt: Instructions to the language model, sent before the history; None sends none.
        language: Two-letter code of the replies, for splitting them into sentences; None uses the
            language of the question.
        max_reply_chars: Maximum length of a reply in characters; it ends with the last sentence
            that fits.
        max_history: Maximum number of earlier messages sent to the language model.
        emotion_tags: Ask the language model to tag sentences with emotions, which the face shows.
        end_silence_s: Silence in seconds that ends the person's turn.
        preemptive: Prepare the reply at the first pause, in case it ends the turn. This shortens
            the wait, but asks the language model again whenever the person goes on.
    """

    system_prompt: str | None = DEFAULT_SYSTEM_PROMPT
    language: str | None = None
    max_reply_chars: PositiveInt = 1000
    max_history: NonNegativeInt = 20
    emotion_tags: bool = False
    end_silence_s: PositiveFloat = 0.6
    preemptive: bool = True
