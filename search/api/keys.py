"""API keys: who may do what. Only hashes of the keys are kept, and comparing them takes the same time for all."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from search.errors import SettingsError

LEAST_SECRET_CHARACTERS = 20
_SECRET_BYTES = 32
_FORM = "write entries as NAME:SCOPES:SECRET, such as `team:read+embed:...`; `search key NAME` makes one"


class Scope(StrEnum):
    """What a key allows."""

    READ = "read"
    """Search and read documents."""
    WRITE = "write"
    """Add and remove documents, start and stop ingests."""
    EMBED = "embed"
    """Encode texts."""
    METRICS = "metrics"
    """Read the server's counters."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key by its SHA-256, which is enough for secrets that are long and random."""

    name: str
    digest: bytes
    scopes: frozenset[Scope]


class KeyRing:
    """The keys of a server; an empty one lets everybody do everything."""

    def __init__(self, keys: Sequence[ApiKey] = ()) -> None:
        self.keys = tuple(keys)
        if len({key.name for key in self.keys}) < len(self.keys):
            raise SettingsError("two API keys have the same name; give each its own, so that the log tells them apart")

    def __bool__(self) -> bool:
        return bool(self.keys)

    def find(self, secret: str) -> ApiKey | None:
        """The key of that secret. All are compared, each in constant time."""
        digest = digest_of(secret)
        found = None
        for key in self.keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


class _KeyRow(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[\w.-]{1,64}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    scopes: frozenset[Scope] = Field(min_length=1)


class _KeyFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: list[_KeyRow]


def digest_of(secret: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def load_keys(path: Path | None, entries: str | None) -> KeyRing:
    """Keys of a TOML file and of a setting, both optional.

    Args:
        path: File with tables `[[keys]]` of `name`, `sha256` and `scopes`.
        entries: `NAME:SCOPE+SCOPE:SECRET`, several separated by commas or spaces.

    Raises:
        SettingsError: The file cannot be read, or an entry is not of that form. No message repeats a secret.
    """
    listed = [_parse_entry(entry, n) for n, entry in enumerate((entries or "").replace(",", " ").split(), 1)]
    return KeyRing([*(_read_file(path) if path else []), *listed])


def new_secret() -> str:
    """A secret to hand out: 256 random bits."""
    return f"pl-{secrets.token_urlsafe(_SECRET_BYTES)}"


def as_toml(name: str, secret: str, scopes: Sequence[Scope]) -> str:
    """The entry of a key file for a secret."""
    listed = ", ".join(f'"{scope}"' for scope in scopes)
    return f'[[keys]]\nname = "{name}"\nsha256 = "{digest_of(secret).hex()}"\nscopes = [{listed}]\n'


def check_entry(entry: str) -> None:
    """Refuse an entry that `load_keys` would not read.

    Raises:
        SettingsError: The name has other characters than letters, digits, dot, dash and underscore, or is too long.
    """
    try:
        _KeyFile.model_validate(tomllib.loads(entry))
    except (ValidationError, tomllib.TOMLDecodeError) as error:
        raise SettingsError("a key's name is 1 to 64 letters, digits, dots, dashes and underscores") from error


def _read_file(path: Path) -> list[ApiKey]:
    try:
        rows = _KeyFile.model_validate(tomllib.loads(path.expanduser().read_text(encoding="utf-8"))).keys
    except ValidationError as error:
        where = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise SettingsError(f"the key file {path} is not valid: {where}. `search key NAME` writes an entry.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        message = f"the key file {path} cannot be read: {error}. `search key NAME` writes an entry."
        raise SettingsError(message) from error
    return [ApiKey(row.name, bytes.fromhex(row.sha256), row.scopes) for row in rows]


def _parse_entry(entry: str, number: int) -> ApiKey:
    name, scopes, secret = ([*entry.split(":", 2), "", ""])[:3]
    if not name or not secret:
        raise SettingsError(f"API key {number} of PANLINGUA_SERVE_KEYS is not of the right form; {_FORM}")
    if len(secret) < LEAST_SECRET_CHARACTERS:
        message = f"the secret of API key {name!r} is shorter than {LEAST_SECRET_CHARACTERS} characters"
        raise SettingsError(f"{message}; `search key {name}` makes a good one")
    try:
        return ApiKey(name, digest_of(secret), frozenset(Scope(scope) for scope in scopes.split("+")))
    except ValueError as error:
        known = ", ".join(Scope)
        raise SettingsError(f"API key {name!r} has an unknown scope in {scopes!r}; known: {known}. {_FORM}") from error
