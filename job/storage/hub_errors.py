"""Translate the errors of huggingface_hub to those of `job.errors`, by class and status.

No message contains a token, be it from the environment or from a request.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from job.errors import (
    ConfigError,
    ForbiddenError,
    MissingError,
    OutputError,
    RecapError,
    RetryError,
)

TRANSIENT = (408, 429)  # HTTP statuses to retry, besides 500 and above


@contextmanager
def hub_errors(where: str, writes: bool = False) -> Iterator[None]:
    """Raise whatever the block's calls of huggingface_hub raise as errors of `job.errors`.

    The message names `where` and a remedy; `writes` selects the remedy.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    # The base class belongs to httpx or its successor, whichever huggingface_hub is built on.
    transport_error: Any = HfHubHTTPError.__bases__[0]

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise _offline_error(where) from error
    except GatedRepoError as error:
        raise ForbiddenError(
            f"{where} is gated: ask for access on its page, and set HF_TOKEN to a token that may "
            "read gated repositories",
        ) from error
    except HfHubHTTPError as error:
        raise _error_of_status(where, writes, error.response.status_code) from error
    except PermissionError as error:  # raised by transfers from or to the Hub's object storage
        raise _error_of_status(where, writes, 403) from error
    except (LocalEntryNotFoundError, ConnectionError, TimeoutError, transport_error) as error:
        raise _unreachable_error(where, error) from error
    except HFValidationError as error:
        raise ConfigError(f"{where} is no name that the Hub takes: {error}") from error
    except RuntimeError as error:
        # Threads of an upload wrap their error in a RuntimeError: translate its cause.
        if error.__cause__ is None:
            raise _unreachable_error(where, error) from error
        with hub_errors(where, writes):
            raise error.__cause__ from None


def _offline_error(where: str) -> RecapError:
    return ConfigError(
        f"{where}: HF_HUB_OFFLINE forbids asking the Hub: unset it, or name a local folder",
    )


def _unreachable_error(where: str, error: Exception) -> RecapError:
    from huggingface_hub.errors import OfflineModeIsEnabled

    cause = error.__cause__
    if isinstance(cause, OfflineModeIsEnabled):
        return _offline_error(where)
    kind = type(cause or error).__name__
    return RetryError(
        f"{where}: the Hub cannot be reached, or a transfer broke off ({kind}): "
        "run again later, or check HF_ENDPOINT and the network"
    )


def _error_of_status(where: str, writes: bool, status: int) -> RecapError:
    answer = f"{where}: the Hub answered {status}"
    if status in (401, 403):
        wanted = "a token that may read it, if it is private"
        if writes:
            wanted = "a token that may write there"
        return ForbiddenError(f"{answer}: check the name, and set HF_TOKEN to {wanted}")
    if status == 404:
        return MissingError(
            f"{answer}: there is no such repository, revision or file; check the name",
        )
    if status in TRANSIENT or status >= 500:
        return RetryError(f"{answer}, also after retries: run again later")
    kind = OutputError if writes else ConfigError
    return kind(f"{answer}: check the name and what is sent")
