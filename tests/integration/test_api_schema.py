"""Requests made up from the API's own description: every answer is one that the description allows."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.testclient import TestClient

from indexer import build
from search.api.app import create_app
from search.api.keys import Scope, load_keys
from search.api.service import Service
from search.settings import load_settings
from tests.conftest import FakeEncoder
from tests.integration.indexes import FILES
from tests.integration.test_api import TokenEncoder

BY_MEANING = [positive_data_acceptance]
"""Left out: a language, date or key of the right form may still be none that there is, which is 400 or 404."""
SECRET = "a-secret-of-enough-characters"
EXAMPLES = int(os.environ.get("API_EXAMPLES", "25"))


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseSchema]:
    """The API's description, over an index; jobs of the indexer do nothing."""
    folder = tmp_path_factory.mktemp("api")
    for name, text in FILES.items():
        (folder / "corpus" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "corpus" / name).write_text(text, encoding="utf-8")
    chosen = load_settings(home=folder / "home", serve={"rate": 0})
    build.ingest(folder / "corpus", chosen, encoder=FakeEncoder())  # type: ignore[arg-type]
    keys = load_keys(None, f"all:{'+'.join(Scope)}:{SECRET}")
    nothing = [sys.executable, "-c", "pass"]
    service = Service(chosen, keys=keys, encoder=TokenEncoder(), indexer=nothing)  # type: ignore[arg-type]
    app = create_app(service)
    with TestClient(app):
        service.start().join()
        yield schemathesis.openapi.from_asgi("/openapi.json", app)


def test_every_answer_is_one_that_the_description_allows(api: BaseSchema) -> None:
    operations, problems = [found.ok() for found in api.get_all_operations()], []
    assert len(operations) > 12
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
        def check(case: Case) -> None:
            case.call_and_validate(headers={"Authorization": f"Bearer {SECRET}"}, excluded_checks=BY_MEANING)

        try:
            check()
        except BaseExceptionGroup as found:
            problems.append(str(found))
    assert problems == []
