"""User errors. Messages state what was received, what was expected and what to do."""

from __future__ import annotations


class TalkingHeadError(ValueError):
    """Base class of user errors; the command line prints one line and exits with 1."""


class UsageError(TalkingHeadError):
    """Invalid command or configuration; the command line exits with 2."""


class MediaError(TalkingHeadError):
    """Media file that is missing, unreadable, empty, corrupt or cannot be written."""


class FaceNotFoundError(TalkingHeadError):
    """No face, or not the requested one, was found where one is needed."""


class CheckpointError(TalkingHeadError):
    """Checkpoint that is missing, truncated, not one of this project, or of another schema."""


class CorpusError(TalkingHeadError):
    """Prepared corpus that is missing, empty, broken or made for another AVSpec."""


class DependencyError(TalkingHeadError):
    """Missing package, weight file or API key; the message names it and the offline alternative."""


class SpeechError(TalkingHeadError):
    """Failure of a speech or language provider: a refusal, a dropped connection or a timeout."""
