"""From a folder to documents."""

from indexer.sources.files import ReadOptions, SourceFile, iter_files
from indexer.sources.reading import iter_documents

__all__ = ["ReadOptions", "SourceFile", "iter_documents", "iter_files"]
