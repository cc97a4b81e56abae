"""What huggingface_hub raises → the errors of `job.errors`, by class and status.

Tokens are never part of a message: neither those of the environment nor those in a request.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from job.errors import ConfigError, ForbiddenError, MissingError, OutputError, RecapError, RetryError

TRANSIENT = (408, 429)  # and everything from 500 on


@contextmanager
def hub_errors(where: str, writes: bool = False) -> Iterator[None]:
    """Whatever the block's calls of huggingface_hub raise, as errors that name `where` and a remedy."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    transport_error: Any = HfHubHTTPError.__bases__[0]  # of httpx or its successor, whichever huggingface_hub stands on
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise _offline(where) from error
    except GatedRepoError as error:
        raise ForbiddenError(f"{where} is gated: ask for access on its page, and set HF_TOKEN") from error
    except HfHubHTTPError as error:
        raise _answered(where, writes, error.response.status_code) from error
    except PermissionError as error:  # of a transfer that the Hub hands on to its object storage
        raise _answered(where, writes, 403) from error
    except (LocalEntryNotFoundError, ConnectionError, TimeoutError, transport_error) as error:
        raise _unreachable(where, error) from error
    except HFValidationError as error:
        raise ConfigError(f"{where} is no name that the Hub takes: {error}") from error
    except RuntimeError as error:  # of an upload's threads, around what happened to them
        if error.__cause__ is None:
            raise _unreachable(where, error) from error
        with hub_errors(where, writes):
            raise error.__cause__ from None


def _offline(where: str) -> RecapError:
    return ConfigError(f"{where}: HF_HUB_OFFLINE forbids asking the Hub: unset it, or name a local folder")


def _unreachable(where: str, error: Exception) -> RecapError:
    from huggingface_hub.errors import OfflineModeIsEnabled

    cause = error.__cause__
    if isinstance(cause, OfflineModeIsEnabled):
        return _offline(where)
    return RetryError(
        f"{where}: the Hub cannot be reached, or a transfer broke off ({type(cause or error).__name__}): "
        "run again later, or check HF_ENDPOINT and the network"
    )


def _answered(where: str, writes: bool, status: int) -> RecapError:
    said = f"{where}: the Hub answered {status}"
    if status in (401, 403):
        wanted = "a token that may write there" if writes else "a token that may read it, if it is private"
        return ForbiddenError(f"{said}: check the name, and set HF_TOKEN to {wanted}")
    if status == 404:
        return MissingError(f"{said}: there is no such repository, revision or file; check the name")
    if status in TRANSIENT or status >= 500:
        return RetryError(f"{said}, also after retries: run again later")
    kind = OutputError if writes else ConfigError
    return kind(f"{said}: check the name and what is sent")
