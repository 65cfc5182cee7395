"""What the files below an ingested folder are called in the index, also when ingested folders lie within each other.

The innermost ingested folder names a file. So a folder that was ingested before one above it keeps its ids, and no file
is indexed under two names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from indexer.ledger import FileRow, Ledger
from indexer.sources.files import printable


@dataclass(frozen=True, slots=True)
class RootNames:
    """Names of the files below one folder. `prefix` is None for a folder that was never ingested.

    `nested` are the ingested folders below it, innermost first: their path from it ending in `/`, and their own prefix.
    """

    prefix: str | None
    nested: tuple[tuple[str, str], ...]
    others: tuple[str, ...]

    def source(self, relative: str) -> str:
        """What a file at `relative` is called in the index."""
        below, prefix = self._root_of(relative)
        return prefix + relative[len(below) :]

    def is_taken(self, relative: str) -> bool:
        """Whether the file's name would be one of another ingested folder's."""
        _, prefix = self._root_of(relative)
        return not prefix and self.source(relative).startswith(self.others)

    def rows(self, ledger: Ledger) -> Iterator[tuple[str, FileRow]]:
        """Files of the ledger that lie below this folder, each with its path relative to it."""
        own = () if self.prefix is None else (("", self.prefix),)
        for below, prefix in (*own, *self.nested):
            for row in ledger.iter_files(prefix):
                if prefix or not row.source.startswith(self.others):
                    yield below + row.source[len(prefix) :], row

    def _root_of(self, relative: str) -> tuple[str, str]:
        return next(((b, prefix) for b, prefix in self.nested if relative.startswith(b)), ("", self.prefix or ""))


def names_below(root: Path, ledger: Ledger) -> RootNames:
    """Names of the files below `root`, a folder or one file. Reads the ledger; see `Ledger.prefix_of` to add to it."""
    folder = folder_of(root)
    prefix, top = ledger.known_prefix(folder), PurePosixPath(printable(str(folder)))
    nested = []
    for path, other in ledger.roots():
        place = PurePosixPath(printable(path))
        below = place.relative_to(top).parts if place != top and place.is_relative_to(top) else ()
        if below and not any(part.startswith((".", "~$")) for part in below):  # the walk leaves hidden folders out
            nested.append(("".join(f"{part}/" for part in below), other))
    nested.sort(key=lambda item: -len(item[0]))
    others = tuple(other for _, other in ledger.roots() if other and other != prefix)
    return RootNames(prefix, tuple(nested), others)


def folder_of(root: Path) -> Path:
    """The ingested folder, or that of the ingested file."""
    return (root if root.is_dir() else root.parent).resolve()
