"""Exceptions for errors that the user can correct.

Each message states the received value, the expected value and what to do.
"""

from __future__ import annotations


class TalkingHeadError(ValueError):
    """Base class of user errors; the command line prints one line and exits with status 1.

    Attributes:
        completed: What a command had completed before the error, for `output_format=json`.
    """

    completed: object = None


class UsageError(TalkingHeadError):
    """Error for an invalid command or configuration; the command line exits with status 2."""


class MediaError(TalkingHeadError):
    """Error for a media file that is missing, empty, corrupt or cannot be read or written."""


class FaceNotFoundError(TalkingHeadError):
    """Error for an image or video without a face, or without the requested face."""


class CheckpointError(TalkingHeadError):
    """Error for a checkpoint that is missing, truncated or not supported by this version."""


class CorpusError(TalkingHeadError):
    """Error for a prepared corpus that is missing, empty, broken or made for another `AVSpec`."""


class DependencyError(TalkingHeadError):
    """Error for a missing package, weight file or API key.

    The message names the missing item and the offline alternative.
    """


class SpeechError(TalkingHeadError):
    """Error of a speech or language provider: a refusal, a dropped connection or a timeout."""
