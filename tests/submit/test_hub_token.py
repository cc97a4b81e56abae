"""Claims about the token of a job: a model that only the person's token reads is found."""

from typing import Any

import pytest

from job.errors import ExitCode
from job.submit.hub_token import hub_checks
from job.submit.submission import Place, Submission


@pytest.fixture
def base(hub) -> Any:
    """Make a job that reads a model of the Hub; the person's token may read it."""

    def make(**about: bool) -> Submission:
        hub.add("org/base", {"config.json": b"{}"}, **about)
        models = [Place("model.base", "org/base")]
        return Submission("train", "r", "c.yaml", "ab" * 32, hub=models)

    return make


def test_a_public_model_needs_no_token(base):
    (found,) = hub_checks(base(), {})
    assert (found.mark, found.error) == ("✓", None)


@pytest.mark.parametrize("about", [{"gated": True}, {"private": True}])
def test_a_model_that_the_job_may_not_read_ends_as_the_job_would(base, about):
    (found,) = hub_checks(base(**about), {"environment": [{"name": "HOME", "value": "/"}]})
    assert found.error is not None
    assert found.error.exit_code == ExitCode.FORBIDDEN
    assert "deploy with HfTokenSecretArn" in found.found


def test_a_jobs_own_token_is_not_checked(base, hub):
    secret = {"name": "HF_TOKEN", "valueFrom": "arn:aws:secretsmanager:secret"}
    (found,) = hub_checks(base(gated=True), {"secrets": [secret]})
    assert (found.mark, hub.requests) == ("–", [])


def test_a_hub_that_is_down_is_no_error_of_the_job(base, monkeypatch):
    job = base()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    (found,) = hub_checks(job, {})
    assert (found.mark, "cannot be reached" in found.found) == ("–", True)


def test_a_job_without_models_of_the_hub_has_no_check():
    assert hub_checks(Submission("train", "r", "c.yaml", "ab" * 32), {}) == []
