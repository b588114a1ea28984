"""A corpus as a few large files, in a folder or an object store, read through LitData.

LitData rather than WebDataset, because a sample of ours is a random window of a random clip, and
must be the same however one got there: LitData finds item `i` by itself, where a tar archive is
read from its beginning.
"""

from __future__ import annotations

import hashlib
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.datamodule import LipSyncDataModule
from talkinghead.data.dataset import ClipDataset, EvenClipDataset
from talkinghead.data.manifest import MANIFEST_NAME, Manifest
from talkinghead.errors import CorpusError, DependencyError, UsageError
from talkinghead.media.atomic_file import atomic_path

logger = logging.getLogger(__name__)

_Clips = TypeVar("_Clips", bound=ClipDataset)

_MANIFEST_ITEM = 0
"""Item 0 is the manifest; the clips follow in its order."""


def write_shards(corpus_dir: Path | str, output: Path | str, shard_mb: int = 64) -> None:
    """Packs a prepared corpus into shards.

    Args:
        corpus_dir: a prepared corpus.
        output: a folder that is not there yet, or empty. Copy it to an object store with the
            store's own tool.
        shard_mb: size of a shard, in millions of bytes.

    Raises:
        CorpusError: the corpus is missing or broken.
        UsageError: the folder holds something.
        DependencyError: LitData is not installed.
    """
    _require_litdata()
    from litdata.streaming import Cache

    corpus_dir, output = Path(corpus_dir), Path(output)
    manifest = Manifest.load(corpus_dir)
    if output.is_dir() and any(output.iterdir()):
        raise UsageError(f"output={output} is not empty: give a new folder")
    if shard_mb < 1:
        raise UsageError(f"shard_mb={shard_mb}: a shard has a million bytes or more")
    paths = [corpus_dir / MANIFEST_NAME, *(corpus_dir / clip.path for clip in manifest.clips)]
    output.mkdir(parents=True, exist_ok=True)
    writer = Cache(str(output), chunk_bytes=shard_mb * 1_000_000)
    for number, path in enumerate(paths):
        if number > _MANIFEST_ITEM:
            ClipFile(path)
        writer[number] = path.read_bytes()
    # The index comes last: what an interruption leaves behind is not taken for shards.
    writer.done()
    writer.merge()
    logger.info("%s holds %d clips in shards of %d MB", output, len(manifest.clips), shard_mb)


class ShardedCorpus:
    """Clips of a corpus in shards: each is copied to a folder of this machine at first use.

    Args:
        url: a folder, or `s3://`, `gs://` and whatever else LitData reads.
        cache_dir: where the copies lie, a folder for each state of the corpus; they may take as
            much room as the corpus.
        storage_options: LitData's, such as credentials.

    Attributes:
        directory: a prepared corpus, of which the clips come when they are opened.

    Raises:
        CorpusError: the shards are missing or cannot be read.
        DependencyError: LitData is not installed.
    """

    def __init__(
        self, url: str, cache_dir: Path | str, storage_options: dict[str, Any] | None = None
    ) -> None:
        _require_litdata()
        from litdata import StreamingDataset

        cache = Path(cache_dir).expanduser()
        self.url = url
        try:
            self._items = StreamingDataset(
                url, cache_dir=str(cache / "litdata"), storage_options=storage_options
            )
            manifest: bytes = self._items[_MANIFEST_ITEM]
        except Exception as error:  # every store has errors of its own
            raise CorpusError(
                f"{url} holds no shards that can be read ({type(error).__name__}: {error}); make "
                "them with `talkinghead shard input=CORPUS output=SHARDS`"
            ) from error
        self.directory = cache / hashlib.sha256(manifest).hexdigest()[:16]
        _copy(manifest, self.directory / MANIFEST_NAME)
        clips = Manifest.load(self.directory).clips
        self._numbers = {clip.path: number for number, clip in enumerate(clips, start=1)}

    def open(self, path: str) -> ClipFile:
        """A clip by its path in the manifest.

        Raises:
            CorpusError: it cannot be read.
        """
        copy = self.directory / path
        if not copy.is_file():
            try:
                data: bytes = self._items[self._numbers[path]]
            except Exception as error:  # every store has errors of its own
                raise CorpusError(
                    f"clip {path} of {self.url} cannot be read ({type(error).__name__}: {error})"
                ) from error
            _copy(data, copy)
        return ClipFile(copy)


class ShardedClipDataset(ClipDataset):
    """`ClipDataset` of shards, which whoever makes it puts in."""

    shards: ShardedCorpus

    def open(self, clip_index: int) -> ClipFile:
        """A clip, copied from its shard if need be."""
        return self.shards.open(self.clips[clip_index].path)


class ShardedEvenClipDataset(ShardedClipDataset, EvenClipDataset):
    """`EvenClipDataset` of shards."""


class ShardedDataModule(LipSyncDataModule):
    """`LipSyncDataModule` of shards: the same batches as from the corpus they were made of.

    Args:
        corpus_dir: where the shards are, see `ShardedCorpus`.
        cache_dir: see `ShardedCorpus`.
        storage_options: see `ShardedCorpus`.
        **options: those of `LipSyncDataModule`.
    """

    def __init__(
        self,
        corpus_dir: Path | str,
        cache_dir: Path | str = "~/.cache/talkinghead/shards",
        storage_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._corpus = ShardedCorpus(str(corpus_dir), cache_dir, storage_options)
        super().__init__(self._corpus.directory, **options)

    def _dataset(self, kind: type[_Clips], split: str, **options: Any) -> _Clips:
        even = issubclass(kind, EvenClipDataset)
        sharded: Any = ShardedEvenClipDataset if even else ShardedClipDataset
        dataset = super()._dataset(sharded, split, **options)
        dataset.shards = self._corpus
        return dataset


def _copy(data: bytes, path: Path) -> None:
    """Writes a file unless it is there; several processes may do so at the same time."""
    if not path.is_file():
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)


def _require_litdata() -> None:
    if find_spec("litdata") is None:
        raise DependencyError(
            "shards need LitData: pip install 'talkinghead[shards]', or train on the corpus's "
            "folder with data=corpus"
        )
