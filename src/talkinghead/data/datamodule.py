"""LightningDataModules whose batches depend on (seed, iteration) only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, default_collate

from talkinghead.data.augmentation.batch_augmentation import BatchAugmentation
from talkinghead.data.augmentation.finished_batch import finish_batch, finish_mouths
from talkinghead.data.clip_file import ClipFile
from talkinghead.data.data_options import AugmentationOptions, DataOptions
from talkinghead.data.dataset import ClipDataset, EvenClipDataset, PseudoLabelDataset
from talkinghead.data.manifest import MANIFEST_NAME, Manifest
from talkinghead.data.preparation.clip_maker import CODE_VERSION
from talkinghead.data.synthetic_clips import make_synthetic_corpus
from talkinghead.data.window_sampling import IterationBatchSampler
from talkinghead.types import AVSpec

logger = logging.getLogger(__name__)


class _TrainLoader(DataLoader[dict[str, Any]]):
    """Loader that Lightning treats as resumable: the data module's state restores its position."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


class LipSyncDataModule(LightningDataModule):
    """Batches of a prepared corpus; see `finish_batch` for their content.

    With several processes, train with `use_distributed_sampler=False`: the sampler divides the
    samples itself. A corpus of a single clip is both trained and validated on, with a warning.

    Args:
        corpus_dir: a prepared corpus.
        av: the AVSpec that the model is built for, or its fields.
        augmentation: fields of `AugmentationOptions`, null for plain batches.
        pseudo_label_dir: corpus of `talkinghead pseudo_label` that adds a window to every training
            sample, null for none.
        **options: fields of `DataOptions`.

    Example:
        >>> data = LipSyncDataModule("corpora/mine", batch_size=4, augmentation={})
        >>> trainer.fit(module, data)
    """

    def __init__(
        self,
        corpus_dir: Path | str,
        av: AVSpec | Mapping[str, Any] | None = None,
        augmentation: Mapping[str, float] | None = None,
        pseudo_label_dir: Path | str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.options = DataOptions(**options)
        self.pseudo_label_dir = None if pseudo_label_dir is None else Path(pseudo_label_dir)
        self.corpus_dir = Path(corpus_dir)
        self.spec = av if isinstance(av, AVSpec) else AVSpec.from_dict(av or {})
        self.val_splits = tuple(self.options.val_splits)
        self.open_clip: Callable[[str], ClipFile] | None = None
        self.augmentation: BatchAugmentation | None = None
        seed, features = self.options.seed, self.options.audio_features
        if augmentation is not None:
            strength = AugmentationOptions.from_dict(augmentation)
            self.augmentation = BatchAugmentation(self.spec, strength, seed, features)
        batch_size, num_batches = self.options.batch_size, self.options.iterations_per_epoch
        self._sampler = IterationBatchSampler(batch_size, num_batches)

    @property
    def iteration(self) -> int:
        """The next training iteration; the batches before it have been consumed."""
        return self._sampler.iteration

    def setup(self, stage: str | None = None) -> None:
        """Check the corpus.

        Raises:
            CorpusError: it is missing, broken, was prepared with another AVSpec, or lacks what the
                model is conditioned on.
        """
        manifest = Manifest.load(self.corpus_dir)
        manifest.require_spec(self.spec, self.corpus_dir)
        if self.pseudo_label_dir is not None:
            Manifest.load(self.pseudo_label_dir).require_spec(self.spec, self.pseudo_label_dir)
        if len(manifest.clips) == 1:
            logger.warning(
                "%s has a single clip, which is used for training and for validation: val/... "
                "cannot show overfitting. Add videos and run `talkinghead prepare` again",
                self.corpus_dir,
            )
        if self.options.head_pose:
            # Checked here, because an error in a loader process comes with a long traceback.
            self._dataset("train").open(0).tensor("head_pose")
        if self.trainer is not None:
            self._sampler.rank = self.trainer.global_rank
            self._sampler.world_size = self.trainer.world_size

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return random windows of split "train", starting with those of `iteration`."""
        dataset = self._dataset("train")
        if self.pseudo_label_dir is not None:
            dataset.pseudo_labels = PseudoLabelDataset(self.pseudo_label_dir, self.options)
        return self._loader(dataset, _TrainLoader, batch_sampler=self._sampler)

    def val_dataloader(self) -> DataLoader[dict[str, Any]] | list[DataLoader[dict[str, Any]]]:
        """Return fixed windows of each of `val_splits`: a loader, or a list of several."""
        loaders = [self._even_loader(split) for split in self.val_splits]
        return loaders[0] if len(loaders) == 1 else loaders

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return fixed windows of split "test"."""
        return self._even_loader("test")

    def preview_batch(self, num_windows: int, num_frames: int | None = None) -> dict[str, Any]:
        """Return fixed windows of the first validation split, with the audio of their frames.

        Args:
            num_windows: number of windows, from different clips if there are enough.
            num_frames: their length, at most that of the shortest clip; None for that of training.

        Returns:
            A finished batch, and `audio` float [B, N] at the spec's rate.
        """
        options = self.options
        if num_frames is not None:
            clips = Manifest.load(self.corpus_dir).split(self._split_to_read(self.val_splits[0]))
            shortest = min([num_frames, *(clip.num_frames for clip in clips)])
            options = replace(options, num_frames=shortest)
        dataset = self._dataset(self.val_splits[0], num_windows, options)
        items = [dataset[index] for index in range(num_windows)]
        batch = finish_batch(default_collate(items), self.spec)
        audio = [dataset.audio(item["clip_index"], item["start"]) for item in items]
        return {**batch, "audio": torch.stack(audio)}

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Finish a batch on its device; training batches are augmented and advance `iteration`."""
        training = self.trainer is not None and self.trainer.training
        if training:
            self._sampler.iteration = self._sampler.iteration_of(int(batch["index"][0])) + 1
        finish = finish_mouths if self.options.mouths_only else finish_batch
        return finish(batch, self.spec, self.augmentation if training else None)

    def state_dict(self) -> dict[str, Any]:
        """Return the iteration to resume from."""
        return {"iteration": self._sampler.iteration}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a saved iteration."""
        self._sampler.iteration = int(state_dict["iteration"])

    def _dataset(
        self, split: str, num_windows: int | None = None, options: DataOptions | None = None
    ) -> ClipDataset:
        """Return random windows of a split, or `num_windows` fixed ones."""
        options, split = options or self.options, self._split_to_read(split)
        dataset = (
            ClipDataset(self.corpus_dir, split, options, options)
            if num_windows is None
            else EvenClipDataset(self.corpus_dir, split, options, num_windows)
        )
        dataset.open_clip = self.open_clip
        return dataset

    def _split_to_read(self, split: str) -> str:
        """Return the split, or that of the only clip of a corpus."""
        clips = Manifest.load(self.corpus_dir).clips
        return clips[0].split if len(clips) == 1 else split

    def _even_loader(self, split: str) -> DataLoader[dict[str, Any]]:
        dataset = self._dataset(split, self.options.val_windows)
        return self._loader(dataset, batch_size=self.options.batch_size, shuffle=False)

    def _loader(
        self,
        dataset: ClipDataset,
        kind: type[DataLoader[dict[str, Any]]] = DataLoader,
        **options: Any,
    ) -> DataLoader[dict[str, Any]]:
        return kind(
            dataset,
            num_workers=self.options.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.options.num_workers > 0,
            **options,
        )


class SyntheticDataModule(LipSyncDataModule):
    """Batches of drawn faces, which are generated if missing, for smoke runs and tests.

    Args:
        corpus_dir: folder of the corpus, which may not exist yet.
        num_speakers: number of drawn speakers.
        clips_per_speaker: number of clips of each speaker, at least 2.
        seconds: duration of a clip.
        **options: arguments of `LipSyncDataModule`.
    """

    def __init__(
        self,
        corpus_dir: Path | str,
        num_speakers: int = 2,
        clips_per_speaker: int = 4,
        seconds: float = 2.0,
        **options: Any,
    ) -> None:
        super().__init__(corpus_dir, **options)
        self._size = (num_speakers, clips_per_speaker, seconds)

    def prepare_data(self) -> None:
        """Generate the corpus, unless one of the same size, AVSpec and code version exists."""
        num_speakers, clips_per_speaker, seconds = self._size
        if (self.corpus_dir / MANIFEST_NAME).is_file():
            manifest = Manifest.load(self.corpus_dir)
            found = (manifest.spec, len(manifest.clips), manifest.code_version)
            if found == (self.spec, num_speakers * clips_per_speaker, CODE_VERSION):
                return
        make_synthetic_corpus(self.corpus_dir, self.spec, num_speakers, clips_per_speaker, seconds)
