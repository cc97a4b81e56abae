"""Translate the errors of boto3 to those of `job.errors`, by class, status and code.

Messages decide no class: compatible services word them differently, or send none.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from job.errors import (
    AlreadyExistsError,
    ConfigError,
    ForbiddenError,
    MissingError,
    OutputError,
    RecapError,
    RetryError,
)

# S3's error codes, by what they mean here.
DENIED = {
    "ExpiredToken": "the credentials have expired: renew them (`aws sso login`, or a new session)",
    "TokenRefreshRequired": "the credentials have expired: renew them",
    "InvalidToken": "the session token is wrong: renew the credentials, with AWS_SESSION_TOKEN",
    "InvalidAccessKeyId": "this service does not know the access key: check which credentials "
    "are in use (AWS_ACCESS_KEY_ID, AWS_PROFILE), and storage.endpoint_url",
    "SignatureDoesNotMatch": "the secret key does not fit the access key: set both anew",
}
SKEWED = "RequestTimeTooSkewed"
# Of the service that encrypts the bucket, as KMS.DisabledException.
KMS_CODES = "KMS."
KMS_REMEDY = (
    "allow kms:Decrypt, and kms:GenerateDataKey for writing, on the bucket's KMS key to these "
    "credentials: in their policy and in that of the key"
)
FULL = {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
BUSY = {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling"}
OTHER_REGION = {
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}

# The parts of a URL that may be shown are its groups: the scheme, and the host with the path.
URL = re.compile(r"(https?://)(?:[^/\s]*@)?([^\s?#`'\"]*)(?:[?#][^\s`'\"]*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """The target of a request, for error messages: the URI of an object, and the service."""

    uri: str
    service: str
    writes: bool = False


@contextmanager
def s3_errors(target: Target) -> Iterator[None]:
    """Raise whatever the block's calls of boto3 raise as errors of `job.errors`.

    The message names `target` and a remedy.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from s3transfer.exceptions import RetriesExceededError, S3DownloadFailedError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        raise _error_of_answer(target, error.response) from error
    except BotoCoreError as error:
        raise _error_without_answer(target, error) from error
    except HTTPError as error:
        # botocore neither retries nor wraps the error of a small answer that breaks off.
        kind = type(error).__name__
        raise RetryError(
            f"{target.uri}: {target.service} broke off within its answer ({kind}): run again",
        ) from error
    except (RetriesExceededError, S3DownloadFailedError) as error:
        raise RetryError(
            f"{target.uri}: the transfer from {target.service} broke off more often than retries "
            "allow, or the object changed meanwhile: run again"
        ) from error
    except (Boto3Error, ResponseParserError) as error:
        raise not_s3(target) from error


def not_s3(target: Target) -> ConfigError:
    """Return the error for an answer that no S3 service would give."""
    return ConfigError(
        f"{target.uri}: what answers at {target.service} does not speak S3: "
        "check storage.endpoint_url and the AWS_ENDPOINT_URL variables"
    )


def status_of(response: Any) -> int:
    """Return the HTTP status of boto3's `response`, 0 if it has none."""
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def seconds_ahead(response: Any) -> float | None:
    """Return by how much the clock of this machine is ahead of the service's, in seconds.

    `response` has just come. Return None without a date in it.
    """
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        return time.time() - parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None


def without_login(text: str) -> str:
    """Return the text with its URLs stripped of logins and queries.

    These may contain a user, a password or a signature, which must not reach a log.
    """
    return URL.sub(r"\1\2", text)


def _error_of_answer(target: Target, response: Any) -> RecapError:
    status = status_of(response)
    code = str(response.get("Error", {}).get("Code", ""))

    # An answer to HEAD has no body; boto3 then uses the status as its code.
    suffix = "" if code in ("", str(status)) else f" {code}"
    answer = f"{target.uri}: {target.service} answered {status}{suffix}"

    # Codes before statuses: services send the same code with different statuses.
    if code in FULL or status == 507:
        return OutputError(f"{answer}: its storage is full; make room or raise the quota")
    if status == 501:
        return OutputError(f"{answer}: this service does not have what the request asks for")
    if code in BUSY or status == 429 or status >= 500:
        return RetryError(f"{answer}, also after retries: run again later")
    if code == "NoSuchBucket":
        return MissingError(
            f"{answer}: there is no such bucket; create it, or check both the name of the bucket "
            "and storage.endpoint_url"
        )
    if status == 404:
        return MissingError(
            f"{answer}: there is no such object (or no such bucket); check the name",
        )
    if code in OTHER_REGION or status in (301, 307):
        headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        region = headers.get("x-amz-bucket-region", "another one")
        return ConfigError(
            f"{answer}: the bucket is in another region; set storage.region to {region}",
        )
    if code in DENIED:
        return ForbiddenError(f"{answer}: {DENIED[code]}")
    if code == SKEWED:
        return ForbiddenError(f"{answer}: {_clock(response)}")
    if code.startswith(KMS_CODES):
        return ForbiddenError(
            f"{answer}: the KMS key of the bucket cannot be used: enable it, or give the bucket "
            "another one"
        )
    if status in (401, 403):
        is_of_key = "kms:" in str(response.get("Error", {}).get("Message", ""))
        return ForbiddenError(f"{answer}: {KMS_REMEDY if is_of_key else _permissions(target)}")
    if status == 412:  # the condition of a guarded write failed
        return AlreadyExistsError(f"{target.uri} is there already")
    if status == 409:
        return RetryError(f"{answer}: others write there at the same time; run again")
    kind = OutputError if target.writes else ConfigError
    return kind(f"{answer}: check the URI, the storage section and the credentials")


def _clock(response: Any) -> str:
    ahead = seconds_ahead(response)
    how = "off"
    if ahead is not None:
        how = f"{abs(ahead) / 60:,.0f} minutes {'ahead' if ahead > 0 else 'behind'}"
    return f"the clock of this machine is {how}, and the service allows 15 minutes: set it"


def _permissions(target: Target) -> str:
    """Return the remedy for a denied request: the permissions that the operation needs."""
    if target.writes:
        wanted = "s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload"
        return f"allow {wanted} to these credentials"

    # S3 hides from those who may not list a bucket which of its objects exist.
    hint = "without s3:ListBucket an object that is not there is answered the same"
    return f"allow s3:GetObject and s3:ListBucket to these credentials; {hint}"


def _error_without_answer(target: Target, error: Exception) -> RecapError:
    """Return the error for an exception of botocore that came without an answer of the service."""
    from botocore import exceptions as botocore_errors

    credentials = (
        botocore_errors.NoCredentialsError,
        botocore_errors.PartialCredentialsError,
        botocore_errors.CredentialRetrievalError,
        botocore_errors.NoAuthTokenError,
        botocore_errors.TokenRetrievalError,
        botocore_errors.SSOError,
        botocore_errors.LoginError,
        botocore_errors.MetadataRetrievalError,
    )
    connection = (
        botocore_errors.ConnectionError,
        botocore_errors.HTTPClientError,
        botocore_errors.IncompleteReadError,
        botocore_errors.ChecksumError,
        botocore_errors.FlexibleChecksumError,
    )

    name = type(error).__name__
    if isinstance(error, credentials):
        return ForbiddenError(
            f"{target.uri}: no usable AWS credentials ({name}): set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the job a role"
        )
    if isinstance(error, botocore_errors.SSLError):  # before its base class, ConnectionError
        return RetryError(
            f"{target.uri}: no secure connection to {target.service} ({name}): "
            "check storage.endpoint_url, and AWS_CA_BUNDLE for a certificate of one's own"
        )
    if isinstance(error, connection):
        return RetryError(
            f"{target.uri}: {target.service} cannot be reached or breaks off, also after retries "
            f"({name}): run again later, or check storage.endpoint_url and the network"
        )
    why = without_login(str(error))
    return ConfigError(f"{target.uri}: S3 cannot be used as configured: {why}")
