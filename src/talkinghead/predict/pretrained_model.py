"""Methods of a predictor that load and publish models through the Hugging Face hub."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkinghead.errors import UsageError
from talkinghead.runtime.hub import find_pretrained, push_to_hub, save_pretrained

if TYPE_CHECKING:
    from typing import Self

    from talkinghead.predict.options import PredictOptions


class PretrainedModel(ABC):
    """Base class of predictors that can be loaded from, and published on, the Hugging Face hub.

    Attributes:
        checkpoint: The file from which the predictor was loaded, None for a given model.

    Example:
        >>> predictor = LipSyncPredictor.from_pretrained("owner/name")
        >>> predictor.save_pretrained("folder")
    """

    checkpoint: Path | None = None

    @classmethod
    @abstractmethod
    def from_checkpoint(
        cls, path: str | Path = "default", options: PredictOptions | None = None, **changes: Any
    ) -> Self:
        """Load a predictor from a checkpoint."""

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        options: PredictOptions | None = None,
        *,
        revision: str | None = None,
        **changes: Any,
    ) -> Self:
        """Load a predictor from the Hugging Face hub, or from a folder with the same files.

        Args:
            name: OWNER/NAME on the hub, or a folder written by `save_pretrained`.
            options: see `PredictOptions`.
            revision: Branch, tag or commit on the hub.
            **changes: fields of `PredictOptions`, in place of those of `options`.

        Raises:
            CheckpointError: There is no such model, or the hub cannot be reached.
            DependencyError: The package huggingface_hub is missing.
        """
        return cls.from_checkpoint(find_pretrained(name, revision), options, **changes)

    def save_pretrained(self, folder: str | Path, scores: str | Path | None = None) -> None:
        """Write the model with its model card to a folder, for `from_pretrained`.

        Args:
            folder: Folder to write; an existing model card in it is kept.
            scores: The scores.json of `talkinghead evaluate`, for the figures of the model card.

        Raises:
            UsageError: The predictor was not loaded from a checkpoint, or the scores are unusable.
        """
        save_pretrained(self._checkpoint_file(), folder, scores)

    def push_to_hub(self, name: str, scores: str | Path | None = None, **options: Any) -> str:
        """Publish the model with its model card on the hub, and return the URL of the commit.

        Args:
            name: OWNER/NAME; the repository is created if it does not exist.
            scores: The scores.json of `talkinghead evaluate`, for the figures of the model card.
            **options: Keyword arguments of `huggingface_hub.ModelHubMixin.push_to_hub`.

        Raises:
            CheckpointError: The hub refuses the model or cannot be reached.
            UsageError: The predictor was not loaded from a checkpoint.
        """
        return push_to_hub(self._checkpoint_file(), name, scores, **options)

    def _checkpoint_file(self) -> Path:
        if self.checkpoint is None:
            raise UsageError("only a predictor made by from_checkpoint can be saved or published")
        return self.checkpoint
