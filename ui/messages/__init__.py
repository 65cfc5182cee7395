"""What the interface says, in the languages that it speaks: one TOML file each, `en.toml` the reference."""

from __future__ import annotations

import tomllib
import unicodedata
from functools import lru_cache
from pathlib import Path

from ui.languages import direction_of

FOLDER = Path(__file__).parent
REFERENCE = "en"
LANGUAGES = ("en", "es", "fr", "de", "pt", "ru", "ar", "hi", "zh", "ja")


@lru_cache(maxsize=len(LANGUAGES))
def load_messages(language: str) -> dict[str, str]:
    """Messages of a language by key."""
    return {key: str(text) for key, text in tomllib.loads((FOLDER / f"{language}.toml").read_text("utf-8")).items()}


def nearest_language(wanted: str | None) -> str:
    """The interface's language for a browser's locale such as `pt-BR`."""
    code = (wanted or "").replace("_", "-").split("-")[0].lower()
    return code if code in LANGUAGES else REFERENCE


class Speaker:
    """Says things in one language of the interface: `say("results", shown=3)`."""

    def __init__(self, language: str) -> None:
        self.language = nearest_language(language)

    def __call__(self, key: str, **values: object) -> str:
        """The message of that key with its values filled in, those that run in the other direction set apart."""
        isolated = {name: self.isolated(str(value)) for name, value in values.items()}
        return load_messages(self.language)[key].format(**isolated)

    def isolated(self, value: str) -> str:
        """`value`, between U+2068 and U+2069 where it has letters that run against this language (Unicode annex 9)."""
        against = {"L"} if direction_of(self.language) == "rtl" else {"R", "AL", "RLO"}
        return f"\u2068{value}\u2069" if any(unicodedata.bidirectional(sign) in against for sign in value) else value
