"""Ask the Hub if a job may read its models, whose token is not that of the person who submits."""

import os
from collections.abc import Mapping
from typing import Any

from job.errors import ForbiddenError, MissingError, RecapError
from job.preflight.checks import Check
from job.storage.hub_errors import hub_errors
from job.submit.submission import Place, Submission

TOKEN = "HF_TOKEN"
NAME = "hub token"  # of the check


def hub_checks(submission: Submission, container: Mapping[str, Any]) -> list[Check]:
    """Return the check of the models on the Hub, for a job in this container of a definition.

    Nobody may read the secret that holds the job's token. Without one, the Hub is asked without.
    """
    if not submission.hub:
        return []
    given = [*(container.get("secrets") or []), *(container.get("environment") or [])]
    if any(each["name"] == TOKEN for each in given):
        text = f"not checked: the job has an {TOKEN} of its own, from a secret"
        return [Check(NAME, text, is_known=False)]
    return [_without_token(place) for place in submission.hub]


def _without_token(place: Place) -> Check:
    """Return the check of a model that a job without a token reads."""
    from huggingface_hub import HfApi

    where = f"{place.key}: {place.uri}"
    try:
        with hub_errors(where):
            HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=False).auth_check(place.uri)
    except (ForbiddenError, MissingError):
        error = ForbiddenError(
            f"{where} is private or gated, and the job has no {TOKEN}: put a token into Secrets "
            "Manager, and deploy with HfTokenSecretArn (nights: NightHfTokenSecretArn)"
        )
        return Check(NAME, str(error), error)
    except RecapError as error:
        return Check(NAME, f"not checked: {error}", is_known=False)
    return Check(NAME, f"{place.uri} needs none, and the job has none")
