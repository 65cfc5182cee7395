"""What surrounds every page: style, the document's language and direction, the reader's preferences."""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from streamlit.components import v2

from ui.access import COOKIE, token_to_keep
from ui.languages import direction_of, language_name
from ui.messages import LANGUAGES, Speaker
from ui.state import choose_interface_language

STYLE = Path(__file__).parents[1] / "style.css"
ICON = Path(__file__).parents[1] / "icon.png"
_CHOICE = "interface-language"
_SET_DOCUMENT = """
export default function ({ data }) {
  document.documentElement.lang = data.lang;
  document.documentElement.dir = data.dir;
  document.documentElement.style.setProperty("--say-choose", JSON.stringify(data.choose));
  // Sliders run in the direction of the browser's language, whatever that of the page is.
  const browser = new Intl.Locale(navigator.language).maximize();
  document.documentElement.dataset.sliders = /^(Arab|Hebr|Thaa|Nkoo|Adlm|Syrc)$/.test(browser.script) ? "rtl" : "ltr";
  if (data.token) {
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `${data.cookie}=${data.token}; Path=/; SameSite=Strict${secure}`;
  }
}
"""
_START_AT_TOP = """
export default function ({ data }) {
  const root = document.documentElement.dataset;
  if (root.shown !== undefined && root.shown !== data.shown)
    document.querySelector('[data-testid="stMain"]')?.scrollTo(0, 0);
  root.shown = data.shown;
}
"""


def draw_frame(say: Speaker) -> None:
    """Style the page and tell the browser its language and direction, for screen readers and line breaking."""
    st.html(STYLE)
    st.logo(ICON, size="large")
    data = {
        "lang": say.language, "dir": direction_of(say.language), "choose": say("corpus.choose"),
        "cookie": COOKIE, "token": token_to_keep(),
    }  # fmt: skip
    with st.container(key="document-settings", height=1, border=False):
        v2.component("panlingua.document", js=_SET_DOCUMENT)(data=data, key="document")


def start_at_top(shown: str) -> None:
    """Take the reader to the top of the page whenever `shown`, which names what it shows, is another than before."""
    with st.container(key="start-at-top", height=1, border=False):
        v2.component("panlingua.top", js=_START_AT_TOP)(data={"shown": shown}, key="top")


def draw_preferences(say: Speaker) -> None:
    """The interface's language, at the end of the page."""
    with st.container(key="preferences", width=240):
        st.selectbox(
            say("interface"), LANGUAGES, index=LANGUAGES.index(say.language), key=_CHOICE,
            format_func=language_name, on_change=_choose, filter_mode=None,
        )  # fmt: skip


def _choose() -> None:
    choose_interface_language(st.session_state[_CHOICE])
