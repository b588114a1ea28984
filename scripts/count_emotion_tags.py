"""Count the replies of a local language model that contain emotion tags.

python scripts/count_emotion_tags.py                    the packaged SmolLM2
python scripts/count_emotion_tags.py --model file.gguf

Each of twenty questions is answered with the prompt of `emotion_tags=true`. Text in brackets that
would reach the voice and the subtitles is counted too.
"""

from __future__ import annotations

import argparse

from talkinghead.predict.source.head.expression.emotion_tags import take_emotion
from talkinghead.speech.conversation import DEFAULT_SYSTEM_PROMPT, previous_messages
from talkinghead.speech.llm.llama import Llama
from talkinghead.speech.protocols import Message
from talkinghead.speech.sentences import split_reply

_QUESTIONS = (
    *("How are you today?", "I won the lottery!", "My dog died yesterday."),
    *("What is the capital of France?", "Somebody stole my bicycle."),
    *("There is a huge spider on the wall.", "The soup tastes of soap.", "I passed my exam."),
    *("Tell me a joke.", "It is raining again.", "Guess what, I am getting married."),
    *("I lost my job.", "Why is the sky blue?", "My neighbour plays drums all night."),
    *("What do you like to eat?", "I saw a ghost.", "My sister had a baby."),
    *("The train is late again.", "Do you like music?", "Good night."),
)


def main() -> None:
    """Print each reply with its emotions, and the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="packaged")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    llm = Llama(options.model, seed=options.seed, num_threads=1)
    num_tagged = num_leaked = 0
    for question in _QUESTIONS:
        messages = previous_messages(DEFAULT_SYSTEM_PROMPT, [], 20, emotion_tags=True)
        reply = "".join(llm.reply([*messages, Message("user", question)]))
        sentences = [take_emotion(sentence) for sentence in split_reply([reply])]
        emotions = [emotion.name for _, emotion in sentences if emotion is not None]
        num_tagged += bool(emotions)
        num_leaked += any("[" in text or "]" in text for text, _ in sentences)
        print(f"{question!r}: {reply!r}: {', '.join(emotions) or 'no tags'}")
    print(
        f"{num_tagged} of {len(_QUESTIONS)} replies have tags; brackets are spoken in {num_leaked}"
    )


if __name__ == "__main__":
    main()
