"""Errors for users: each says what was received, what was expected and what to do."""

from __future__ import annotations


class TalkingHeadError(ValueError):
    """Base of every error that a user can cause or mend.

    The command line prints it in one line and exits with 1.
    """


class UsageError(TalkingHeadError):
    """The command or its configuration is wrong. The command line exits with 2."""


class MediaError(TalkingHeadError):
    """A media file is missing, unreadable, empty, corrupt or cannot be written."""


class FaceNotFoundError(TalkingHeadError):
    """No face (or not the face asked for) was found where one is needed."""


class CheckpointError(TalkingHeadError):
    """A checkpoint is missing, truncated, foreign or of another schema."""


class CorpusError(TalkingHeadError):
    """A prepared corpus is missing, empty, broken or disagrees with the AVSpec."""


class DependencyError(TalkingHeadError):
    """A package, a weight file or a key that this choice needs is missing.

    Names it and the offline choice.
    """


class SpeechError(TalkingHeadError):
    """Something that hears, thinks or speaks failed: a provider's refusal, a hang-up, a timeout."""
