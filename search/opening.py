"""Open an index for searching, embedded or on a server: its store, its manifest and its language map together."""

from __future__ import annotations

import base64
import hashlib
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.balance import LanguageMap
from search.errors import EncoderError, IndexNotFoundError, SettingsError
from search.fold import FAMILIES, Families, FamiliesFile, vectors_origin
from search.index import SHARD, IndexFolder
from search.manifest import IndexManifest, parse_manifest
from search.settings import Settings
from search.store.base import VectorStore
from search.token_store import TOKEN_STORE, TokenStore

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

    from search.encoder import Encoder

_SERVER_POLL_S = 2.0
_NUMBERED = re.compile(r"@\d+$")
BEGUN = "begun"
"""Kept with a server's collection: the manifest as it was when shards began to fill it."""


@dataclass(frozen=True)
class OpenIndex:
    """An index as it was when it was opened; `is_outdated` says whether a newer state was published since."""

    store: VectorStore
    manifest: IndexManifest
    language_map: LanguageMap
    is_outdated: Callable[[], bool]
    close: Callable[[], None] = field(repr=False)
    families: Families = field(default_factory=lambda: FamiliesFile(None), repr=False)
    folder: Path | None = None
    """Where files beside the store are: the generation, or what the home folder keeps of a server's collection."""
    tokens: TokenStore | None = field(default=None, repr=False)
    """Token vectors of passages, where the index was made with them."""

    @property
    def languages(self) -> list[str]:
        """Languages of the index, most chunks first."""
        return sorted(self.manifest.languages, key=lambda lang: (-self.manifest.languages[lang], lang))


def open_index(settings: Settings) -> OpenIndex:
    """Open what the settings name: the server when there is a store URL, else the embedded index.

    Raises:
        IndexNotFoundError: There is no such index.
        IndexFormatError: It is damaged or of another version.
        StoreError: The server cannot be reached.
    """
    return _open_server(settings) if settings.store else _open_embedded(settings.index_folder)


def name_own_encoder(settings: Settings, manifest: IndexManifest | None = None, *, fresh: bool = False) -> Settings:
    """The settings, and where they name no encoder that which the index was built with.

    Args:
        settings: Where the index is, and what was asked for.
        manifest: The index's; None: it is looked for.
        fresh: The index will be made anew: the one that is there decides nothing.
    """
    if "encoder" in settings.model_fields_set or fresh:
        return settings
    manifest = manifest or _own_manifest(settings)
    return settings.model_copy(update={"encoder": manifest.encoder}) if manifest else settings


def load_own_encoder(settings: Settings, manifest: IndexManifest | None = None, *, fresh: bool = False) -> Encoder:
    """The encoder of `name_own_encoder`.

    Raises:
        EncoderError: It cannot be found, read or run.
    """
    from search.encoder import load_encoder

    named = name_own_encoder(settings, manifest, fresh=fresh)
    try:
        return load_encoder(
            named.encoder, backend=named.backend, threads=named.threads, cache_dir=named.encoders_folder
        )
    except EncoderError as error:
        if named.encoder == settings.encoder:
            raise
        raise EncoderError(f"{error} The index was built with that one: name its folder with --encoder.") from error


def _own_manifest(settings: Settings) -> IndexManifest | None:
    """What the index says of itself, also while shards of a server's collection are not merged; None: there is none."""
    if not settings.store:
        folder = IndexFolder(settings.index_folder)
        return folder.current().manifest if folder.current_number() is not None else None
    from search.store.server import read_metadata

    client, name = connect_index(settings)
    with closing(client):
        metadata = read_metadata(client, name)
    stated = metadata.get("manifest", metadata.get(BEGUN))
    return parse_manifest(stated, name) if stated else None


def collection_name(settings: Settings) -> str:
    """What this index is called on a server: an alias, which points at its collection.

    Raises:
        SettingsError: The index is called like a collection.
    """
    name = settings.index_folder.name
    if _NUMBERED.search(name):
        raise SettingsError(f"an index on a server cannot be called {name!r}: @ and a number are of its collections")
    return f"panlingua-{name}"


def connect_index(settings: Settings) -> tuple[QdrantClient, str]:
    """A client for the server of the settings, and what the index is called there.

    Raises:
        SettingsError: No server is named.
        StoreError: The URL is not one.
    """
    from search.store.server import connect

    if not settings.store:
        raise SettingsError("name the server with --store URL or PANLINGUA_STORE")
    return connect(settings.store, settings.api_key), collection_name(settings)


def server_folder(settings: Settings) -> Path:
    """What whoever ingests keeps of a server's collection in the home folder: the ledger and the translations."""
    key = hashlib.sha256(f"{settings.store}\0{collection_name(settings)}".encode()).hexdigest()[:16]
    return settings.home / "servers" / key


def token_store_path(settings: Settings) -> Path:
    """Where token vectors are kept: beside the generations of an index, or with what is kept of a collection."""
    return (server_folder(settings) if settings.store else settings.index_folder) / TOKEN_STORE


def server_metadata(manifest: IndexManifest, language_map: LanguageMap) -> dict[str, Any]:
    """What is kept with a collection: the manifest and the language map as text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map"
        language_map.save(path)
        return {"manifest": manifest.model_dump_json(), "language_map": base64.b64encode(path.read_bytes()).decode()}


def read_server_metadata(metadata: dict[str, Any], where: str) -> tuple[IndexManifest, LanguageMap]:
    """What `server_metadata` made."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map"
        path.write_bytes(base64.b64decode(metadata["language_map"]))
        return parse_manifest(metadata["manifest"], where), LanguageMap.load(path)


def _origin(manifest: IndexManifest) -> str:
    return vectors_origin(manifest.encoder_fingerprint, manifest.map_fingerprint)


def _open_embedded(path: Path) -> OpenIndex:
    from search.store.edge import EdgeStore, make_reader_view

    folder = IndexFolder(path)
    while True:
        generation = folder.current()
        view = folder.new_reader_view()
        try:
            manifest, language_map = generation.manifest, generation.language_map
            families = FamiliesFile(generation.path / FAMILIES, _origin(manifest))
            make_reader_view(generation.path / SHARD, view.path)
            break
        except BaseException:
            view.close()
            if folder.current_number() == generation.number:
                raise
    store = EdgeStore(view.path, manifest.dimension)
    tokens = TokenStore(path / TOKEN_STORE, manifest.encoder_fingerprint)

    def is_outdated() -> bool:
        view.keep()
        return folder.current_number() != generation.number

    def close() -> None:
        store.close()
        view.close()
        families.close()
        tokens.close()

    return OpenIndex(store, manifest, language_map, is_outdated, close, families, generation.path, tokens)


def _open_server(settings: Settings) -> OpenIndex:
    from search.server_families import ServerFamilies, are_known, mark_of
    from search.store.server import ServerStore, find_collection, metadata_of

    client, name = connect_index(settings)
    collection = find_collection(client, name)  # looked up once: another may become the index at any moment
    metadata = metadata_of(client, collection) if collection else {}
    if collection is None or "manifest" not in metadata:
        client.close()
        message = f"there is no index {name!r} on {settings.store}; make one with `indexer ingest FOLDER --store URL`"
        raise IndexNotFoundError(message)
    manifest, language_map = read_server_metadata(metadata, f"{name} on {settings.store}")
    store = ServerStore(client, collection, manifest.dimension)

    looked_at = time.monotonic()

    def is_outdated() -> bool:
        nonlocal looked_at
        if time.monotonic() - looked_at < _SERVER_POLL_S:
            return False
        looked_at = time.monotonic()
        if find_collection(client, name) != collection:
            return True
        newest = metadata_of(client, collection)
        return bool(newest.get("manifest") != metadata["manifest"] or mark_of(newest) != mark_of(metadata))

    families = ServerFamilies(store, known=are_known(metadata), origin=_origin(manifest))
    tokens = TokenStore(token_store_path(settings), manifest.encoder_fingerprint)

    def close() -> None:
        store.close()
        families.close()
        tokens.close()

    return OpenIndex(store, manifest, language_map, is_outdated, close, families, server_folder(settings), tokens)
