"""The password in front of the whole application, where PANLINGUA_PASSWORD is set."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
import time

import streamlit as st

from ui.components.markup import draw, notice, tag
from ui.messages import Speaker

VARIABLE = "PANLINGUA_PASSWORD"
COOKIE = "panlingua-access"
_SECRET = secrets.token_bytes(32)
_ENTERED = "access-token"
_WAIT_S = 1.0
_one_at_a_time = threading.Lock()


def is_allowed() -> bool:
    """Whether this session may see anything: no password is set, or it was given here or earlier in this browser."""
    password = os.environ.get(VARIABLE, "")
    if not password:
        return True
    given = (st.session_state.get(_ENTERED, ""), st.context.cookies.get(COOKIE, ""))
    return any(hmac.compare_digest(str(token).encode(), _token(password).encode()) for token in given)


def ask(say: Speaker) -> None:
    """Ask for the password; a wrong one costs a second, for everybody who guesses at the same time."""
    draw(tag("h1", "Panlingua", class_="brand"))
    with st.form("access", border=False, width=360):
        given = st.text_input(say("access.password"), type="password", autocomplete="current-password")
        sent = st.form_submit_button(say("access.enter"), type="primary")
    if not sent:
        return
    password = os.environ.get(VARIABLE, "")
    with _one_at_a_time:
        right = hmac.compare_digest(_token(given).encode(), _token(password).encode())
        if not right:
            time.sleep(_WAIT_S)
    if right:
        st.session_state[_ENTERED] = _token(password)
        st.rerun()
    notice(say("access.wrong"), kind="problem")


def token_to_keep() -> str | None:
    """What the browser keeps for this process's lifetime, so that a reload does not ask again."""
    password = os.environ.get(VARIABLE, "")
    return _token(password) if password and st.session_state.get(_ENTERED) else None


def _token(password: str) -> str:
    return hmac.new(_SECRET, password.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
