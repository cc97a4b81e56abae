"""AWS through boto3: clients, and what they raise as errors of recap."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from job.errors import ConfigError, ForbiddenError, RecapError, RetryError
from job.storage.aws_session import new_session
from job.storage.s3_errors import without_login

MAX_ATTEMPTS = 5
CONNECT_SECONDS = 10

# Error codes of AWS.
BAD_CREDENTIALS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "OptInRequired"}
BUSY = {"Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded"}


class Aws:
    """The account and region of this environment."""

    def client(self, service: str, region: str | None = None) -> Any:
        """Return a client of the service, in another region if one is named."""
        from botocore.config import Config

        retries = {"mode": "standard", "total_max_attempts": MAX_ATTEMPTS}
        config = Config(retries=retries, connect_timeout=CONNECT_SECONDS)
        return self._session.client(service, region_name=region, config=config)

    @cached_property
    def _session(self) -> Any:
        """One session for all clients."""
        import boto3

        return boto3.session.Session(botocore_session=new_session())


def is_denied(error: Any) -> bool:
    """Return True if AWS's answer is that these credentials may not ask."""
    return error.response.get("Error", {}).get("Code") in DENIED


@contextmanager
def aws_errors(what: str) -> Iterator[None]:
    """Raise what boto3 raises in the block as an error of `job.errors`.

    Its message begins with `what` was asked.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as error:
        raise _error_of_answer(what, error.response) from error
    except ResponseParserError as error:
        raise ConfigError(
            f"{what}: what answers does not speak AWS's protocol: check the AWS_ENDPOINT_URL "
            "variables and the proxy"
        ) from error
    except BotoCoreError as error:
        raise _error_without_answer(what, error) from error


def _error_of_answer(what: str, response: Any) -> RecapError:
    details = response.get("Error", {})
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    code = str(details.get("Code", ""))
    answer = f"{what}: AWS answered {details.get('Code')}: {details.get('Message', '')}"

    if code in BUSY or status == 429 or status >= 500:
        return RetryError(f"{answer}, also after retries: run again later")
    if code in BAD_CREDENTIALS:
        return ForbiddenError(
            f"{answer}: the credentials are wrong or have expired, or this machine's clock is off"
        )
    if code in DENIED or status in (401, 403):
        return ForbiddenError(
            f"{answer}: allow it to these credentials (docs/operations.md, Permissions)"
        )
    return ConfigError(f"{answer}: check the names and the numbers of the command line")


def _error_without_answer(what: str, error: Exception) -> RecapError:
    from botocore import exceptions as of

    name = type(error).__name__
    credential_errors = (
        of.NoCredentialsError,
        of.PartialCredentialsError,
        of.CredentialRetrievalError,
        of.LoginError,
        of.NoAuthTokenError,
        of.TokenRetrievalError,
        of.SSOError,
        of.MetadataRetrievalError,
    )
    if isinstance(error, credential_errors):
        return ForbiddenError(
            f"{what}: no usable AWS credentials ({name}): set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (after `aws sso login`, where it is one of "
            "those)"
        )
    if isinstance(error, of.ConnectionError | of.HTTPClientError):
        return RetryError(
            f"{what}: AWS cannot be reached, also after retries ({name}): check the network, the "
            "region and the AWS_ENDPOINT_URL variables, or run again later"
        )
    if isinstance(error, of.NoRegionError):
        return ConfigError(
            f"{what}: no AWS region is named: set AWS_DEFAULT_REGION, or one in AWS_PROFILE"
        )
    return ConfigError(f"{what}: AWS cannot be used as configured: {without_login(str(error))}")
