"""The pages. A page draws; what it draws is computed elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ui.messages import Speaker
from ui.resources import Library
from ui.views import corpus_page, encoders_page, explore_page, search_page


@dataclass(frozen=True)
class Page:
    """A page: `name` is its URL path and, as `page.NAME`, the key of its title."""

    name: str
    icon: str
    draw: Callable[[Library, Speaker], None]


PAGES = (
    Page("search", ":material/search:", search_page.draw_search),
    Page("explore", ":material/bubble_chart:", explore_page.draw_explore),
    Page("corpus", ":material/folder_open:", corpus_page.draw_corpus),
    Page("encoders", ":material/tune:", encoders_page.draw_encoders),
)
