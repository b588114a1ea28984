"""LightningDataModules whose batches depend on (seed, iteration) only."""

from __future__ import annotations

import logging
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

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
from talkinghead.data.synthetic_clips import make_synthetic_corpus, synthetic_clip_frames
from talkinghead.data.window_sampling import IterationBatchSampler
from talkinghead.types import AVSpec
from talkinghead.value_rules import PositiveFloat, PositiveInt, Range

logger = logging.getLogger(__name__)


class _TrainLoader(DataLoader[dict[str, Any]]):
    """A loader that Lightning accepts as resumable; the data module restores the position."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


class LipSyncDataModule(LightningDataModule):
    """A data module for a prepared corpus; see `finish_batch` for the content of the batches.

    With several processes, train with `use_distributed_sampler=False`, because the sampler of this
    module divides the samples between the processes. If a small corpus has no clip for training or
    for validation, the same clips are used for both, and a warning is logged.

    Args:
        corpus_dir: A prepared corpus.
        av: The AVSpec that the model is built for, or its fields.
        augmentation: Fields of `AugmentationOptions`; null for no augmentation.
        pseudo_label_dir: A corpus of `talkinghead pseudo_label`, from which one window is added to
            every training sample, or null.
        **options: Fields of `DataOptions`.

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
        """The next training iteration; the batches before that iteration have been consumed."""
        return self._sampler.iteration

    def setup(self, stage: str | None = None) -> None:
        """Check the corpus.

        Raises:
            CorpusError: The corpus is missing, broken, was prepared with another AVSpec, or has no
                labels for a condition of the model.
        """
        manifest = Manifest.load(self.corpus_dir)
        manifest.require_spec(self.spec, self.corpus_dir)
        if self.pseudo_label_dir is not None:
            Manifest.load(self.pseudo_label_dir).require_spec(self.spec, self.pseudo_label_dir)
        without_own = [s for s in ("train", *self.val_splits) if self._split_to_read(s) != s]
        if without_own and stage != "validate":
            logger.warning(
                "%s has %d clip(s) and none for %s, so the same clips are used for training and "
                "for validation: val/... cannot show overfitting. Add videos and run `talkinghead "
                "prepare` again",
                *(self.corpus_dir, len(manifest.clips), " and ".join(without_own)),
            )
        if self.options.head_pose:
            # Check this here, because an error in a loader process has a long traceback.
            self._dataset("train").open(0).tensor("head_pose")
        if self.trainer is not None:
            self._sampler.rank = self.trainer.global_rank
            self._sampler.world_size = self.trainer.world_size

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return a loader of random windows of split "train" that starts at `iteration`."""
        dataset = self._dataset("train")
        if self.pseudo_label_dir is not None:
            dataset.pseudo_labels = PseudoLabelDataset(self.pseudo_label_dir, self.options)
        return self._loader(dataset, _TrainLoader, batch_sampler=self._sampler)

    def val_dataloader(self) -> DataLoader[dict[str, Any]] | list[DataLoader[dict[str, Any]]]:
        """Return a list of loaders of fixed windows, or the loader itself for a single split."""
        loaders = [self._even_loader(split) for split in self.val_splits]
        return loaders[0] if len(loaders) == 1 else loaders

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return a loader of fixed windows of split "test"."""
        return self._even_loader("test")

    def preview_batch(self, num_windows: int, num_frames: int | None = None) -> dict[str, Any]:
        """Return a batch of fixed windows of the first validation split, with audio samples.

        The windows are taken from different clips if there are enough. Their length `num_frames`,
        by default that of training windows, is limited to the shortest clip.

        Returns:
            The batch of `finish_batch` and `audio`, float [B, N] at the sample rate of the AVSpec.
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
        """Finish a batch on its device; also augment training batches and count `iteration`."""
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
        """Return a dataset of random windows of a split, or of `num_windows` fixed windows."""
        options, split = options or self.options, self._split_to_read(split)
        dataset = (
            ClipDataset(self.corpus_dir, split, options, options)
            if num_windows is None
            else EvenClipDataset(self.corpus_dir, split, options, num_windows)
        )
        dataset.open_clip = self.open_clip
        return dataset

    def _split_to_read(self, split: str) -> str:
        """Return the split to read: another one if it has no clip of the length of a window.

        A small corpus may have no clip for validation, and a single clip may be in any split.
        """
        manifest = Manifest.load(self.corpus_dir)
        others = ("train", "val", "test") if len(manifest.clips) == 1 else ("train",)
        return next(
            (
                name
                for name in dict.fromkeys((split, *others))
                if any(c.num_frames >= self.options.num_frames for c in manifest.split(name))
            ),
            split,
        )

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
            worker_init_fn=_leave_process_group,
            **options,
        )


def _leave_process_group(_: int) -> None:
    """Keep signals to the process group away from a worker.

    An interrupted training run needs batches until the end of the iteration.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    else:  # On Windows, Ctrl-C reaches all processes of the console.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


class SyntheticDataModule(LipSyncDataModule):
    """A data module for drawn faces, for smoke runs and tests; the corpus is made if missing.

    Args:
        corpus_dir: Folder of the corpus; the folder may be missing.
        num_speakers: Number of drawn speakers.
        clips_per_speaker: Number of clips of each speaker, at least 2.
        seconds: Duration of a clip.
        **options: Arguments of `LipSyncDataModule`.
    """

    def __init__(
        self,
        corpus_dir: Path | str,
        num_speakers: PositiveInt = 2,
        clips_per_speaker: Annotated[int, Range(2)] = 4,
        seconds: PositiveFloat = 2.0,
        **options: Any,
    ) -> None:
        super().__init__(corpus_dir, **options)
        self._size = (num_speakers, clips_per_speaker, seconds)

    def prepare_data(self) -> None:
        """Generate the corpus, unless one of the same size, AVSpec and code version exists."""
        num_speakers, clips_per_speaker, seconds = self._size
        if (self.corpus_dir / MANIFEST_NAME).is_file():
            manifest = Manifest.load(self.corpus_dir)
            speakers = Counter(clip.speaker for clip in manifest.clips)
            frames = {clip.num_frames for clip in manifest.clips}
            expected = {f"cartoon{number}": clips_per_speaker for number in range(num_speakers)}
            if (manifest.spec, manifest.code_version, speakers, frames) == (
                *(self.spec, CODE_VERSION, expected),
                {synthetic_clip_frames(seconds, self.spec.fps)},
            ):
                return
        make_synthetic_corpus(self.corpus_dir, self.spec, num_speakers, clips_per_speaker, seconds)
