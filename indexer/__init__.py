"""Indexer: reads mixed-language documents and fills an index."""
