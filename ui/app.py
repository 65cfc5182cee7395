"""The application's frame: password, language, pages. Streamlit runs this file; `ui` starts it (ui/main.py)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import streamlit as st

from search.errors import IndexNotFoundError, PanlinguaError
from ui import access, resources
from ui.components import frame
from ui.components.markup import problem
from ui.messages import Speaker
from ui.state import interface_language
from ui.views import PAGES, Page
from ui.views.welcome_page import draw_welcome


def main(first: str = PAGES[0].name) -> None:
    """Draw the page that the URL asks for, by default the one called `first`."""
    st.set_page_config(page_title="Panlingua", page_icon=str(frame.ICON), layout="wide")
    say = Speaker(interface_language())
    frame.draw_frame(say)
    if not access.is_allowed():
        access.ask(say)
        return
    pages = [_as_streamlit_page(page, say, is_first=page.name == first) for page in PAGES]
    chosen = st.navigation(pages, position="top")
    chosen.run()
    frame.draw_preferences(say)


def _as_streamlit_page(page: Page, say: Speaker, *, is_first: bool) -> st.Page:
    return st.Page(
        partial(_draw, page.draw, say), title=say(f"page.{page.name}"), icon=page.icon, url_path=page.name,
        default=is_first,
    )  # fmt: skip


def _draw(draw: Callable[[resources.Library, Speaker], None], say: Speaker) -> None:
    """Draw a page; an error that is meant for people is shown as a message."""
    try:
        try:
            library = resources.open_library()
        except IndexNotFoundError:
            draw_welcome(say)
            return
        draw(library, say)
    except PanlinguaError as error:
        problem(error, say)


if __name__ == "__main__":
    main()
