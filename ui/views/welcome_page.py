"""The page shown while there is no index."""

from __future__ import annotations

from ui.components.job_list import draw_jobs
from ui.components.markup import draw, tag
from ui.corpus import INDEX_JOBS
from ui.messages import Speaker
from ui.views.corpus_page import draw_adding


def draw_welcome(say: Speaker) -> None:
    """Say how to begin."""
    draw(tag("div", tag("h1", "Panlingua", class_="brand"), tag("p", say("welcome")), class_="hero"))
    draw_jobs(INDEX_JOBS, say)
    draw_adding(say)
