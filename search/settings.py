"""Runtime settings: a flag wins over the environment, the environment over `panlingua.toml`, that over the default."""

from __future__ import annotations

import hashlib
import os
import sys
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from search.errors import SettingsError

DEFAULT_ENCODER = "panlingua-e5-small"


def default_home() -> Path:
    """The user's data folder for this application, by the platform's convention."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "panlingua"
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", str(Path.home()))) / "panlingua"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "panlingua"


class ServeSettings(BaseModel):
    """The HTTP server: `[serve]` in `panlingua.toml`, `PANLINGUA_SERVE_<NAME>`, or a flag of `search serve`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(default="127.0.0.1", description="address to listen on; others than this machine need keys")
    port: int = Field(default=8080, ge=0, le=65535)
    keys: str | None = Field(default=None, repr=False, description="API keys, NAME:SCOPE+SCOPE:SECRET,...")
    keys_file: Path | None = Field(default=None, description="TOML file with hashes of API keys")
    hosts: tuple[str, ...] = Field(default=(), description="host names that may be asked for; none: see docs/api.md")
    folders: tuple[Path, ...] = Field(default=(), description="folders that may be ingested through the API")
    rate: int = Field(default=600, ge=0, description="requests a minute and caller; 0: no limit")
    max_body_bytes: int = Field(default=16 * 2**20, ge=1024, description="largest request")
    timeout_s: float = Field(default=30.0, gt=0, description="longest a request may take")
    workers: int = Field(default=8, ge=1, le=256, description="searches that run at the same time")
    waiting: int = Field(default=128, ge=1, description="searches that run or wait; further ones are refused")


class Settings(BaseSettings):
    """Where things are kept and what runs them; read at the edges (command line, UI, API) only.

    Every field can be set as `PANLINGUA_<NAME>` or in `panlingua.toml` in the home folder.
    """

    model_config = SettingsConfigDict(
        env_prefix="PANLINGUA_",
        env_ignore_empty=True,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        extra="forbid",
        frozen=True,
    )

    home: Path = Field(default_factory=default_home, description="folder for indexes, encoders and caches")
    index: str = Field(default="default", description="name of the index in the home folder, or a path")
    store: str | None = Field(default=None, description="URL of a Qdrant server; none: the embedded index")
    api_key: str | None = Field(default=None, repr=False, description="API key of the Qdrant server")
    encoder: str = Field(default=DEFAULT_ENCODER, description="built-in name, local folder or hub id")
    backend: str = Field(default="auto", description="auto, openvino, openvino-f32, torch or torch-bf16")
    threads: int | None = Field(default=None, ge=1, description="CPU threads of the encoder; none: all cores")
    serve: ServeSettings = Field(default_factory=ServeSettings, description="the HTTP server")

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then environment, then the TOML file of the home folder."""
        home = Path(os.environ.get("PANLINGUA_HOME") or default_home()).expanduser()
        toml = TomlConfigSettingsSource(settings_cls, toml_file=home / "panlingua.toml")
        return init_settings, env_settings, toml

    @property
    def encoders_folder(self) -> Path:
        """Where converted and exported encoders are cached."""
        return self.home / "encoders"

    @property
    def index_folder(self) -> Path:
        """The embedded index: a path when `index` looks like one, else a folder of that name in the home folder."""
        if "/" in self.index or os.sep in self.index or self.index.startswith((".", "~")):
            return Path(self.index).expanduser().absolute()
        return self.home / "indexes" / self.index

    @property
    def index_label(self) -> str:
        """Name of what the home folder keeps about the index: the index's, with a mark where it lies elsewhere."""
        folder = self.index_folder
        if folder.parent == self.home / "indexes":
            return folder.name
        return f"{folder.name}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]}"


def load_settings(**flags: Any) -> Settings:
    """Settings with the given flags on top; flags of None count as not given.

    Raises:
        SettingsError: A value is not allowed; the message names the setting.
    """
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors())
        raise SettingsError(f"settings: {lines}. Check the flags, PANLINGUA_* and panlingua.toml.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(f"panlingua.toml in the home folder cannot be read: {error}. Mend or remove it.") from error


@lru_cache(maxsize=1)
def version() -> str:
    """Version of the installed package."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("panlingua")
    except PackageNotFoundError:
        return "0+source"
