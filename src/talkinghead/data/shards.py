"""Corpora in a few large files (shards), in a folder or an object store, read with LitData.

LitData is used because it has random access to items; a tar archive (WebDataset) has to be read
from its beginning.
"""

from __future__ import annotations

import hashlib
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from talkinghead.data.clip_file import ClipFile
from talkinghead.data.datamodule import LipSyncDataModule
from talkinghead.data.manifest import MANIFEST_NAME, Manifest
from talkinghead.errors import CorpusError, DependencyError, UsageError
from talkinghead.media.atomic_file import atomic_folder, atomic_path
from talkinghead.value_rules import PositiveInt

logger = logging.getLogger(__name__)

_MANIFEST_ITEM = 0
"""Number of the item with the manifest; the clips follow in the order of the manifest."""


def write_shards(corpus_dir: Path | str, output: Path | str, shard_mb: PositiveInt = 64) -> None:
    """Pack a prepared corpus into shards.

    Args:
        corpus_dir: A prepared corpus.
        output: A new or empty folder. To use an object store, copy the folder with the tool of the
            store.
        shard_mb: Size of a shard in megabytes.

    Raises:
        CorpusError: The corpus is missing or broken.
        MediaError: The folder cannot be written.
        UsageError: The folder is not empty, or the size is less than 1.
        DependencyError: LitData is not installed.
    """
    _require_litdata()
    from litdata.streaming import Cache

    corpus_dir, output = Path(corpus_dir), Path(output)
    manifest = Manifest.load(corpus_dir)
    if output.is_dir() and any(output.iterdir()):
        raise UsageError(f"output={output} is not empty: give a new folder")
    if shard_mb < 1:
        raise UsageError(f"shard_mb={shard_mb}: a shard needs a million bytes or more")
    paths = [corpus_dir / MANIFEST_NAME, *(corpus_dir / clip.path for clip in manifest.clips)]
    with atomic_folder(output) as folder:
        writer = Cache(str(folder), chunk_bytes=shard_mb * 1_000_000)
        for number, path in enumerate(paths):
            if number > _MANIFEST_ITEM:
                ClipFile(path)  # Raises an error if the clip is broken.
            writer[number] = path.read_bytes()
        writer.done()
        writer.merge()
    logger.info("%s has %d clips in shards of %d MB", output, len(manifest.clips), shard_mb)


class ShardedCorpus:
    """A sharded corpus whose clips are copied to a local folder when they are first used.

    The arguments are those of `ShardedDataModule`. Each version of the corpus has its own subfolder
    of `cache_dir`, which may become as large as the corpus.

    Attributes:
        directory: Local folder of the corpus, to which a clip is copied when it is opened.

    Raises:
        CorpusError: The shards are missing or cannot be read.
        DependencyError: LitData is not installed.
    """

    def __init__(
        self, url: str, cache_dir: Path | str, storage_options: dict[str, Any] | None = None
    ) -> None:
        _require_litdata()
        from litdata import StreamingDataset

        cache, self.url = Path(cache_dir).expanduser(), url
        try:
            options = {"cache_dir": str(cache / "litdata"), "storage_options": storage_options}
            self._items = StreamingDataset(url, **options)
            manifest: bytes = self._items[_MANIFEST_ITEM]
        except Exception as error:  # The errors depend on the store.
            raise CorpusError(
                f"{url} has no readable shards ({type(error).__name__}: {error}); make "
                "them with `talkinghead shard input=CORPUS output=SHARDS`"
            ) from error
        self.directory = cache / hashlib.sha256(manifest).hexdigest()[:16]
        _copy(manifest, self.directory / MANIFEST_NAME)
        clips = Manifest.load(self.directory).clips
        self._numbers = {clip.path: number for number, clip in enumerate(clips, start=1)}

    def open(self, path: str) -> ClipFile:
        """Open a clip by its path in the manifest.

        Raises:
            CorpusError: The clip cannot be read.
        """
        copy = self.directory / path
        if not copy.is_file():
            try:
                data: bytes = self._items[self._numbers[path]]
            except Exception as error:  # Each store raises other errors.
                raise CorpusError(
                    f"clip {path} of {self.url} cannot be read ({type(error).__name__}: {error})"
                ) from error
            _copy(data, copy)
        return ClipFile(copy)


class ShardedDataModule(LipSyncDataModule):
    """A data module for a sharded corpus, with the same batches as for the original corpus.

    Args:
        corpus_dir: Folder or URL (s3://, gs:// or azure://) of the shards.
        cache_dir: Folder to which clips are copied when they are first used.
        storage_options: Options of the store for LitData, such as credentials; null to use the
            environment variables of the store.
        **options: Arguments of `LipSyncDataModule`.
    """

    def __init__(
        self,
        corpus_dir: Path | str,
        cache_dir: Path | str = "~/.cache/talkinghead/shards",
        storage_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        corpus = ShardedCorpus(str(corpus_dir), cache_dir, storage_options)
        super().__init__(corpus.directory, **options)
        self.open_clip = corpus.open


def _copy(data: bytes, path: Path) -> None:
    """Write a file if it does not exist; several processes may call this at the same time."""
    if not path.is_file():
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)


def _require_litdata() -> None:
    if find_spec("litdata") is None:
        raise DependencyError(
            "shards need LitData: pip install 'talkinghead[shards]', or train on the corpus's "
            "folder with data=corpus"
        )
