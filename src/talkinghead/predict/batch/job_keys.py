"""Presence of the values of a single job, which is checked before heavy modules are imported."""

from __future__ import annotations

from typing import Any

from talkinghead.errors import UsageError


def require_job_keys(face: Any, audio: Any, output: Any, text: Any = None) -> None:
    """Check that a face, speech (or a text) and an output were given.

    Raises:
        UsageError: Some were not given, or the text is empty.
    """
    given = {"face": face, "audio": text if audio is None else audio, "output": output}
    if missing := [name for name, value in given.items() if value is None]:
        raise UsageError(
            f"{' and '.join(f'{name}=FILE' for name in missing)} must be given: "
            "face=photo.jpg audio=speech.wav (or text=...) output=talking.mp4, or "
            "jobs=list.csv for several"
        )
    if text is not None and not text.strip():
        raise UsageError('text= is empty: give words to speak, such as text="Hello, you."')
