"""The LightningDataModule: loaders whose batches depend on (seed, iteration) alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, default_collate

from talkinghead.data.augmentation.batch_augmentation import (
    AugmentationOptions,
    BatchAugmentation,
    finish_batch,
    finish_mouths,
)
from talkinghead.data.dataset import ClipDataset, EvenClipDataset, PseudoLabelDataset
from talkinghead.data.manifest import MANIFEST_NAME, Manifest
from talkinghead.data.preparation.clip_maker import CODE_VERSION
from talkinghead.data.synthetic_clips import make_synthetic_corpus
from talkinghead.data.window_sampling import IterationBatchSampler
from talkinghead.types import AVSpec

_Clips = TypeVar("_Clips", bound=ClipDataset)


class _TrainLoader(DataLoader[dict[str, Any]]):
    """Tells Lightning that stopping within an epoch is safe: the sampler goes on by itself."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The data module's state has all that is needed."""


class LipSyncDataModule(LightningDataModule):
    """Batches of a prepared corpus: see `finish_batch` for what they hold.

    With several processes train with `use_distributed_sampler=False`: the sampler divides the
    samples itself.

    Args:
        corpus_dir: a prepared corpus.
        av: the AVSpec that the model is built for, or its fields.
        batch_size: samples of a batch, per process.
        num_workers: loader processes; 0 loads in this one.
        num_frames: target frames of a window.
        context_frames: frames of audio before them.
        lookahead_frames: frames of audio after them.
        seed: of sampling and augmentation.
        augmentation: fields of `AugmentationOptions`; None trains on plain batches.
        iterations_per_epoch: batches of a training epoch.
        val_windows: windows of each validation split.
        val_splits: splits to validate on, a loader each.
        audio_features: see `ClipDataset`.
        emotions: see `ClipDataset`.
        head_pose: see `ClipDataset`.
        mouths_only: batches of `finish_mouths` in place of `finish_batch`.
        windows_per_clip: see `ClipDataset`.
        reference_min_gap: see `ClipDataset`.
        open_reference_fraction, revoiced_fraction: see `ClipDataset`.
        speaker_weights: see `clip_probabilities`.
        temperature: see `clip_probabilities`.
        pseudo_label_dir: a corpus of `talkinghead pseudo_label`, of which every training sample has a window
            too; None is none.
    """

    def __init__(
        self,
        corpus_dir: Path | str,
        av: AVSpec | Mapping[str, Any] | None = None,
        batch_size: int = 8,
        num_workers: int = 1,
        num_frames: int = 5,
        context_frames: int = 16,
        lookahead_frames: int = 2,
        seed: int = 0,
        augmentation: Mapping[str, float] | None = None,
        iterations_per_epoch: int = 100,
        val_windows: int = 64,
        val_splits: Sequence[str] = ("val",),
        audio_features: Sequence[str] = ("mel",),
        emotions: Sequence[str] = (),
        head_pose: bool = False,
        mouths_only: bool = False,
        windows_per_clip: int = 1,
        reference_min_gap: int = 10,
        open_reference_fraction: float = 0.3,
        revoiced_fraction: float = 0.0,
        speaker_weights: Mapping[str, float] | None = None,
        temperature: float = 0.5,
        pseudo_label_dir: Path | str | None = None,
    ) -> None:
        super().__init__()
        self.pseudo_label_dir = None if pseudo_label_dir is None else Path(pseudo_label_dir)
        self.corpus_dir = Path(corpus_dir)
        self.spec = av if isinstance(av, AVSpec) else AVSpec.from_dict(av or {})
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.mouths_only = mouths_only
        self.val_windows = val_windows
        self.val_splits = tuple(val_splits)
        self._options: dict[str, Any] = {
            "num_frames": num_frames,
            "context_frames": context_frames,
            "lookahead_frames": lookahead_frames,
            "seed": seed,
            "audio_features": audio_features,
            "emotions": emotions,
            "head_pose": head_pose,
            "reference_min_gap": reference_min_gap,
            "open_reference_fraction": open_reference_fraction,
        }
        self._train_options: dict[str, Any] = {
            "revoiced_fraction": revoiced_fraction,
            "windows_per_clip": windows_per_clip,
            "speaker_weights": speaker_weights,
            "temperature": temperature,
        }
        self.augmentation: BatchAugmentation | None = None
        if augmentation is not None:
            options = AugmentationOptions.from_dict(augmentation)
            self.augmentation = BatchAugmentation(self.spec, options, seed, audio_features)
        self._sampler = IterationBatchSampler(batch_size, iterations_per_epoch)

    @property
    def iteration(self) -> int:
        """The next training iteration: batches before it have been consumed."""
        return self._sampler.iteration

    def setup(self, stage: str | None = None) -> None:
        """Checks the corpus.

        Raises:
            CorpusError: it is missing, broken, or was prepared with another AVSpec, or without what
                the model is conditioned on.
        """
        Manifest.load(self.corpus_dir).require_spec(self.spec, self.corpus_dir)
        if self.pseudo_label_dir is not None:
            Manifest.load(self.pseudo_label_dir).require_spec(self.spec, self.pseudo_label_dir)
        if self._options["head_pose"]:
            # Here, where the error is a line, rather than in a loader's process.
            self._dataset(ClipDataset, "train", **self._options).open(0).tensor("head_pose")
        if self.trainer is not None:
            self._sampler.rank = self.trainer.global_rank
            self._sampler.world_size = self.trainer.world_size

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Random windows of split "train", from `iteration` on."""
        dataset = self._dataset(
            ClipDataset, "train", **self._options, **self._train_options, spoken=self._spoken()
        )
        return self._loader(dataset, _TrainLoader, batch_sampler=self._sampler)

    def val_dataloader(self) -> DataLoader[dict[str, Any]] | list[DataLoader[dict[str, Any]]]:
        """The same windows every time: a loader, or one for each of `val_splits`."""
        loaders = [self._even_loader(split) for split in self.val_splits]
        return loaders[0] if len(loaders) == 1 else loaders

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The same windows of split "test" every time."""
        return self._even_loader("test")

    def preview_batch(self, num_windows: int, num_frames: int | None = None) -> dict[str, Any]:
        """Windows of the first validation split, always the same, and the sound of their frames.

        Args:
            num_windows: how many, from different clips where there are so many.
            num_frames: their length; as in training if not given, and no longer than the
                shortest clip.

        Returns:
            a finished batch, and `audio` float [B, N] at the spec's rate.
        """
        options = dict(self._options)
        if num_frames is not None:
            clips = Manifest.load(self.corpus_dir).split(self.val_splits[0])
            options["num_frames"] = min([num_frames, *(clip.num_frames for clip in clips)])
        dataset = self._dataset(
            EvenClipDataset, self.val_splits[0], num_windows=num_windows, **options
        )
        items = [dataset[index] for index in range(num_windows)]
        batch = finish_batch(default_collate(items), self.spec)
        batch["audio"] = torch.stack(
            [dataset.audio(item["clip_index"], item["start"]) for item in items]
        )
        return batch

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Finishes a batch on its device; training ones are augmented and move `iteration` on."""
        training = self.trainer is not None and self.trainer.training
        if training:
            self._sampler.iteration = self._sampler.iteration_of(int(batch["index"][0])) + 1
        finish = finish_mouths if self.mouths_only else finish_batch
        return finish(batch, self.spec, self.augmentation if training else None)

    def state_dict(self) -> dict[str, Any]:
        """Where to go on."""
        return {"iteration": self._sampler.iteration}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there."""
        self._sampler.iteration = int(state_dict["iteration"])

    def _even_loader(self, split: str) -> DataLoader[dict[str, Any]]:
        dataset = self._dataset(
            EvenClipDataset, split, num_windows=self.val_windows, **self._options
        )
        return self._loader(dataset, batch_size=self.batch_size, shuffle=False)

    def _spoken(self) -> PseudoLabelDataset | None:
        if self.pseudo_label_dir is None:
            return None
        names = ("num_frames", "context_frames", "lookahead_frames", "seed", "audio_features")
        return PseudoLabelDataset(
            self.pseudo_label_dir, **{name: self._options[name] for name in names}
        )

    def _dataset(self, kind: type[_Clips], split: str, **options: Any) -> _Clips:
        """A split's windows; where clips are not files, another data module opens them."""
        return kind(self.corpus_dir, split, **options)

    def _loader(
        self,
        dataset: ClipDataset,
        kind: type[DataLoader[dict[str, Any]]] = DataLoader,
        **options: Any,
    ) -> DataLoader[dict[str, Any]]:
        return kind(
            dataset,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            **options,
        )


class SyntheticDataModule(LipSyncDataModule):
    """The same on drawn faces, which are made where they are missing: for smoke runs, tests.

    Args:
        corpus_dir: where the corpus is, or will be.
        num_speakers: see `make_synthetic_corpus`.
        clips_per_speaker: see `make_synthetic_corpus`.
        seconds: length of a clip.
        **options: those of `LipSyncDataModule`.
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
        """Makes the corpus, unless it is there as it would be made."""
        num_speakers, clips_per_speaker, seconds = self._size
        if (self.corpus_dir / MANIFEST_NAME).is_file():
            manifest = Manifest.load(self.corpus_dir)
            as_wanted = (
                manifest.spec == self.spec
                and len(manifest.clips) == num_speakers * clips_per_speaker
            )
            if as_wanted and manifest.code_version == CODE_VERSION:
                return
        make_synthetic_corpus(self.corpus_dir, self.spec, num_speakers, clips_per_speaker, seconds)
