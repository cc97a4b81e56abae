"""What boto3 raises for CloudFormation and Batch → the errors of `job.errors`, by class, status and code.

Knows nothing of what was asked.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from job.errors import ConfigError, ForbiddenError, RecapError, RetryError
from job.storage.s3_errors import without_login

EXPIRED = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
}
EXPIRED |= {
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "RequestExpired",
    "IncompleteSignature",
}
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "OptInRequired"}
BUSY = {"Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded"}


@contextmanager
def aws_errors(what: str) -> Iterator[None]:
    """Whatever the block's calls of boto3 raise, as errors of `job.errors` that begin with `what` was asked."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _answered(what, error.response) from error
    except BotoCoreError as error:
        raise _not_answered(what, error) from error


def _answered(what: str, response: Any) -> RecapError:
    told = response.get("Error", {})
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    code, said = (
        str(told.get("Code", "")),
        f"{what}: AWS answered {told.get('Code')}: {told.get('Message', '')}",
    )
    if code in BUSY or status == 429 or status >= 500:
        return RetryError(f"{said}, also after retries: run again later")
    if code in EXPIRED:
        return ForbiddenError(
            f"{said}: the credentials are wrong or have expired, or this machine's clock is off"
        )
    if code in DENIED or status in (401, 403):
        return ForbiddenError(
            f"{said}: allow it to these credentials (docs/operations.md, Permissions)"
        )
    return ConfigError(f"{said}: check the names and the numbers of the command line")


def _not_answered(what: str, error: Exception) -> RecapError:
    from botocore import exceptions as of

    name = type(error).__name__
    no_credentials = (
        of.NoCredentialsError,
        of.PartialCredentialsError,
        of.CredentialRetrievalError,
        of.LoginError,
    )
    no_token = (of.NoAuthTokenError, of.TokenRetrievalError, of.SSOError, of.MetadataRetrievalError)
    if isinstance(error, no_credentials + no_token):
        return ForbiddenError(
            f"{what}: no usable AWS credentials ({name}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE (after `aws sso login`, where it is one of those)"
        )
    if isinstance(error, of.ConnectionError | of.HTTPClientError):
        return RetryError(
            f"{what}: AWS cannot be reached, also after retries ({name}): check the network, the region and the "
            "AWS_ENDPOINT_URL variables, or run again later"
        )
    if isinstance(error, of.NoRegionError):
        return ConfigError(
            f"{what}: no AWS region is named: set AWS_DEFAULT_REGION, or one in AWS_PROFILE"
        )
    return ConfigError(f"{what}: AWS cannot be used as configured: {without_login(str(error))}")
