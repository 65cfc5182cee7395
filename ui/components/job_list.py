"""Jobs as they run: a real progress bar, what is being read, a button to stop, the summary at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from ui import adapting, jobs
from ui.components.markup import Kind, draw, notice, plain, tag
from ui.jobs import Job, State
from ui.languages import number, percent
from ui.messages import Speaker
from ui.reasons import reason_in

_LOOK_EVERY_S = 1.0
_SEEN = "jobs-running"
_SHOWN = 3
_REASONS = 5


def draw_jobs(kinds: Sequence[str], say: Speaker) -> None:
    """The jobs of these kinds; while one runs they are looked at every second, and its end draws the page anew."""
    running = [job.id for job in jobs.jobs(kinds=kinds) if job.state is State.RUNNING]
    st.session_state[_SEEN] = running

    @st.fragment(run_every=_LOOK_EVERY_S if running else None)
    def look() -> None:
        found = jobs.jobs(kinds=kinds)
        if any(job.id in st.session_state[_SEEN] and job.state is not State.RUNNING for job in found):
            st.rerun()
        for job in [job for job in found if not job.is_dismissed][:_SHOWN]:
            _draw_job(job, say)

    look()


def _draw_job(job: Job, say: Speaker) -> None:
    what = say(f"job.{job.kind}", about=job.about)
    if job.state is State.RUNNING:
        with st.container(border=True, key=f"job-{job.id}"):
            share = job.progress
            draw(tag("strong", what, dir="auto"))
            percentage = percent(share, say.language) if share is not None else say("job.starting")
            st.progress(share or 0.0, text=plain(f"{percentage} {job.at}".strip()))
            label = say("job.stopping" if job.is_stopping else "job.stop")
            st.button(label, key=f"stop-{job.id}", on_click=jobs.stop, args=(job.id,), disabled=job.is_stopping)
        return
    kind: Kind = "info"
    if job.state is State.DONE:
        told, kind = _told(job.summary, say), "good"
    elif job.state is State.STOPPED:
        told = say("job.stopped")
    else:
        told, kind = job.problem or say("job.failed"), "problem"
    if told:
        with st.container(key=f"ended-{job.id}"):
            notice(told, kind=kind, title=what)
            st.button(
                "", icon=":material/close:", key=f"dismiss-{job.id}", help=say("job.dismiss"), type="tertiary",
                on_click=jobs.dismiss, args=(job.id,),
            )  # fmt: skip


def _told(summary: dict[str, Any], say: Speaker) -> str:
    """The end of a job in a sentence; nothing of a job whose outcome shows on the page."""
    if summary.get("event") == "summary":
        names = ("documents", "chunks", "removed")
        counts = {name: number(int(summary.get(name) or 0), say.language) for name in names}
        skipped = summary.get("skipped") or []
        said = say("job.ingested", **counts, skipped=number(len(skipped), say.language))
        reasons = [f"{say.isolated(row['source'])}: {reason_in(row['reason'], say)}" for row in skipped[:_REASONS]]
        more = len(skipped) - len(reasons)
        rest = [say("job.more", files=number(more, say.language), tab=say("corpus.health"))] if more else []
        return "\n".join([said, *reasons, *rest])
    if summary.get("event") == "verdict":
        verdict = say("encoders.recommended" if summary.get("recommended") else "encoders.not_recommended")
        return f"{verdict}\n{adapting.verdict_in(summary.get('findings') or (), say)}"
    if summary.get("event") == "removed" and (removed := summary.get("documents")):
        return say("job.removed", documents=number(len(removed), say.language))
    return ""
