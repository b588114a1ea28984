"""MkDocs hooks that add pages made from the README and the public API."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

import talkinghead

ROOT = Path(__file__).parents[1]
if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md"}
"""Pages of the site that are files at the root of the repository."""

_LINK = re.compile(
    r"(!?)\[(?P<text>[^\]]*)\]\((?P<target>(?!https?:|#|mailto:)[^)#\s]+)(?P<rest>[^)]*)\)"
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    from mkdocs.structure.files import File

    pages = {name: (ROOT / source).read_text(encoding="utf-8") for name, source in PAGES.items()}
    pages["reference.md"] = reference()
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: object, files: Files, **_: object) -> str:
    """Rewrite links to pages of the site, and keep only the text of links to other files."""
    at_root = page.file.src_uri in PAGES  # type: ignore[attr-defined]
    sources = {source: name for name, source in PAGES.items()}

    def rewrite(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("" if at_root else "docs", match["target"]))
        name = sources.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(name) is None:
            return match["text"]
        return f"{match[1]}[{match['text']}]({name}{match['rest']})"

    return _LINK.sub(rewrite, markdown)


def reference() -> str:
    """Return the page for the public names of `talkinghead`."""
    modules = talkinghead._MODULES
    entries = [f"::: talkinghead.{modules[name]}.{name}\n" for name in talkinghead.__all__]
    return "\n".join(["# API reference\n", "Names to import from `talkinghead`.\n", *entries])
