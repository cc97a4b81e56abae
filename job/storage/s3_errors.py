"""What boto3 raises → the errors of `job.errors`, by class, status and code, never by message.

Compatible services word their messages as they like, or send none. Knows nothing of stores.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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

DENIED = {
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "RequestTimeTooSkewed",
}
FULL = {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
BUSY = {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling"}
URL = re.compile(r"(https?://)(?:[^/\s]*@)?([^\s?#`'\"]*)(?:[?#][^\s`'\"]*)?", re.IGNORECASE)
OTHER_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}


@dataclass(frozen=True)
class Place:
    """What an operation is about, for its error message."""

    uri: str
    service: str
    writes: bool = False


@contextmanager
def s3_errors(place: Place) -> Iterator[None]:
    """Whatever the block's calls of boto3 raise, as errors of `job.errors` that name `place` and a remedy."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from s3transfer.exceptions import RetriesExceededError, S3DownloadFailedError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        raise _answered(place, error.response) from error
    except BotoCoreError as error:
        raise _not_answered(place, error) from error
    except HTTPError as error:  # botocore lets these through, untried again, where a small answer breaks off
        raise RetryError(
            f"{place.uri}: {place.service} broke off in the middle of its answer ({type(error).__name__}): run again"
        ) from error
    except (RetriesExceededError, S3DownloadFailedError) as error:
        raise RetryError(
            f"{place.uri}: the transfer from {place.service} broke off more often than retries allow, or the object "
            "changed meanwhile: run again"
        ) from error
    except (Boto3Error, ResponseParserError) as error:
        raise not_s3(place) from error


def not_s3(place: Place) -> ConfigError:
    """The error for an answer that no S3 service would give."""
    return ConfigError(
        f"{place.uri}: what answers at {place.service} does not speak S3: "
        "check storage.endpoint_url and the AWS_ENDPOINT_URL variables"
    )


def status_of(response: Any) -> int:
    """The HTTP status of an answer."""
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def without_login(text: str) -> str:
    """The text with no more of its URLs than anybody may see: they can carry a user, a password or a signature."""
    return URL.sub(r"\1\2", text)


def _answered(place: Place, response: Any) -> RecapError:
    status, code = status_of(response), str(response.get("Error", {}).get("Code", ""))
    told = "" if code in ("", str(status)) else f" {code}"  # an answer to HEAD has no code but its status
    said = f"{place.uri}: {place.service} answered {status}{told}"
    if code in FULL or status == 507:
        return OutputError(f"{said}: its storage is full; make room or raise the quota")
    if code in BUSY or status == 429 or status >= 500:
        return RetryError(f"{said}, also after retries: run again later")
    if code == "NoSuchBucket":
        return MissingError(f"{said}: there is no such bucket; create it, or check its name and storage.endpoint_url")
    if status == 404:
        return MissingError(f"{said}: there is no such object (or no such bucket); check the name")
    if code in OTHER_REGION or status in (301, 307):
        region = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region", "another one")
        return ConfigError(f"{said}: the bucket is in another region; set storage.region to {region}")
    if code in DENIED:
        return ForbiddenError(
            f"{said}: the credentials are wrong or have expired, or this machine's clock is off; renew them"
        )
    if status in (401, 403):
        return ForbiddenError(f"{said}: {_permissions(place)}")
    if status == 412:
        return AlreadyExistsError(f"{place.uri} is there already")
    if status == 409:
        return RetryError(f"{said}: others write there at the same time; run again")
    kind = OutputError if place.writes else ConfigError
    return kind(f"{said}: check the URI, the storage section and the credentials")


def _permissions(place: Place) -> str:
    wanted = (
        "s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload"
        if place.writes
        else "s3:GetObject and s3:ListBucket"
    )
    missing = "" if place.writes else "; without s3:ListBucket an object that is not there is answered the same"
    return f"allow {wanted} to these credentials{missing}"


def _not_answered(place: Place, error: Exception) -> RecapError:
    """Errors without an answer of the service."""
    from botocore import exceptions as of

    credentials = (
        of.NoCredentialsError,
        of.PartialCredentialsError,
        of.CredentialRetrievalError,
        of.NoAuthTokenError,
        of.TokenRetrievalError,
        of.SSOError,
        of.LoginError,
        of.MetadataRetrievalError,
    )
    connection = (
        of.ConnectionError,
        of.HTTPClientError,
        of.IncompleteReadError,
        of.ChecksumError,
        of.FlexibleChecksumError,
    )
    name = type(error).__name__
    if isinstance(error, credentials):
        return ForbiddenError(
            f"{place.uri}: no usable AWS credentials ({name}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "AWS_PROFILE, or give the job a role"
        )
    if isinstance(error, of.SSLError):
        return RetryError(
            f"{place.uri}: no secure connection to {place.service} ({name}): "
            "check storage.endpoint_url, and AWS_CA_BUNDLE for a certificate of one's own"
        )
    if isinstance(error, connection):
        return RetryError(
            f"{place.uri}: {place.service} cannot be reached or breaks off, also after retries ({name}): "
            "run again later, or check storage.endpoint_url and the network"
        )
    return ConfigError(f"{place.uri}: S3 cannot be used as configured: {without_login(str(error))}")
