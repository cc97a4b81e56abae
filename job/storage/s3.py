"""A store below an `s3://` prefix, by boto3, for AWS and compatible services.

A prefix always ends in a slash, so that `my/path` never matches `my/path2`.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from job.config.sections import StorageSection
from job.errors import (
    AlreadyExistsError,
    ChangedError,
    ConfigError,
    MissingError,
    OutputError,
    RecapError,
    RetryError,
)
from job.storage.atomic import new_file, reading, writing
from job.storage.aws_session import new_session
from job.storage.keys import below, check_key, relative_to, split_s3
from job.storage.s3_errors import (
    Target,
    not_s3,
    s3_errors,
    seconds_ahead,
    status_of,
    without_login,
)
from job.storage.s3_stream import open_stream
from job.storage.store import Entry, Progress, Skip, one_at_a_time, read_or_none

WITHOUT_CAUSE = (400, 403)  # HTTP statuses of many errors, which only a body tells apart
CONFLICT = 409  # HTTP status: another guarded write of the same key is in progress
MAX_TRIES_AFTER_CONFLICT = 5
FIRST_WAIT_SECONDS = 0.1  # doubles after each conflict

# Conditions of a write, as boto3 takes them.
NO_CONDITION: Mapping[str, str] = {}
IF_ABSENT: Mapping[str, str] = {"IfNoneMatch": "*"}

PROBE = b"recap tries if conditional writes are honoured here"
WRONG_ETAG = "0" * 32


@dataclass(frozen=True)
class Transfer:
    """Sizes, parallelism and timeouts of requests."""

    part_bytes: int = 16 << 20
    parts_at_once: int = 8
    keys_per_page: int = 1000
    tries: int = 6
    connect_seconds: float = 10


class S3Store:
    """Objects below one prefix of one bucket."""

    def __init__(
        self,
        uri: str,
        options: StorageSection | None = None,
        transfer: Transfer | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bucket, self._prefix = split_s3(uri)
        self.uri = f"s3://{below(self._bucket, self._prefix)}".rstrip("/")
        self._options = options or StorageSection()
        self._transfer = transfer or Transfer()
        self._sleep = sleep
        # By process number: the connections of a client do not survive a fork.
        self._clients: dict[int, Any] = {}

    def stat(self, key: str) -> Entry:
        """Return the entry at `key`; its version is the ETag."""
        name = self._name(key)
        with s3_errors(self._target(key)):
            found = self._head(name)
        return Entry(key, found["ContentLength"], _version(found))

    def _head(self, name: str) -> Mapping[str, Any]:
        """Return the answer to HEAD. If it is a refusal, ask for its cause: HEAD has no body."""
        from botocore.exceptions import ClientError

        where = {"Bucket": self._bucket, "Key": name}
        try:
            return dict(self._client().head_object(**where))
        except ClientError as error:
            if status_of(error.response) not in WITHOUT_CAUSE:
                raise
            found = self._client().get_object(**where)
            found["Body"].close()
            return dict(found)

    def list(self, prefix: str = "", skip: Skip | None = None) -> Iterator[Entry]:
        """Yield every object below `prefix`, page by page.

        Raise DataError for a key that must not become a path, unless `skip` leaves it out.
        """
        root = self._name(prefix) if prefix else self._prefix
        target = self._target(prefix)
        with s3_errors(target):
            pages = self._client().get_paginator("list_objects_v2")
            listing = pages.paginate(
                Bucket=self._bucket,
                Prefix=f"{root}/" if root else "",
                PaginationConfig={"PageSize": self._transfer.keys_per_page},
            )
            for page in listing:
                # boto3 parses any answer of status 200: a web page would be an empty listing.
                if "Name" not in page and "KeyCount" not in page:
                    raise not_s3(target)

                for found in page.get("Contents", ()):
                    # Consoles create an empty object with a slash at the end as a folder.
                    if found["Key"].endswith("/") and not found["Size"]:
                        continue
                    key = relative_to(self._prefix, found["Key"])
                    if skip is None or not skip(key):
                        yield Entry(check_key(key, self.uri), found["Size"], _version(found))

    def read(self, key: str) -> bytes:
        """Return the whole object."""
        with self.open(key) as stream:
            return stream.read()

    def open(self, key: str, start: int = 0) -> BinaryIO:
        """Return the object as a stream that resumes after a dropped connection."""
        client = self._client()
        name = self._name(key)

        def ask(first: int) -> Mapping[str, Any]:
            # S3 answers 416 to a range of an empty object, so there is none from the first byte.
            part = {"Range": f"bytes={first}-"} if first else {}
            answer: Mapping[str, Any] = client.get_object(Bucket=self._bucket, Key=name, **part)
            return answer

        return open_stream(ask, self._target(key), self._transfer.tries, start)

    def download(self, key: str, target: Path, progress: Progress | None = None) -> None:
        """Write the object to the file `target`, atomically, in parallel parts.

        Raise RetryError if the size is not that of the object.
        """
        wanted = self.stat(key).size
        name = self._name(key)
        source = self._target(key)
        report = one_at_a_time(progress) if progress else None

        with new_file(target) as file:
            with writing(target), s3_errors(source):
                # boto3 asks for ranges, and an empty object has none.
                if wanted:
                    self._client().download_fileobj(
                        self._bucket,
                        name,
                        file,
                        Callback=report,
                        Config=self._transfer_config(),
                    )
                got = file.seek(0, os.SEEK_END)

            # Parts of two versions may be mixed if the object was replaced. The caller's digests
            # detect that; the size is free.
            if got != wanted:
                raise RetryError(
                    f"{source.uri}: got {got} bytes, wanted {wanted}: it changed meanwhile; "
                    "run again"
                )

    def upload(self, source: Path, key: str, progress: Progress | None = None) -> None:
        """Write the file to `key`, in parallel parts if it is large.

        Readers see the old object until the last part has arrived. boto3 deletes the parts of an
        upload that fails. Those of a process that is killed stay until a rule of the bucket
        expires them.
        """
        name = self._name(key)
        target = self._target(key, writes=True)
        report = one_at_a_time(progress) if progress else None
        with reading(source):
            opened = source.open("rb")

        # Not `upload_file`: it wraps errors in one of its own, without status and code.
        with opened, reading(source), s3_errors(target):
            self._client().upload_fileobj(
                opened,
                self._bucket,
                name,
                Callback=report,
                Config=self._transfer_config(),
            )

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Write `data` to `key` in one request.

        With `if_absent`, the service lets one of several writers win. If its answer is lost, boto3
        sends the request again, so that even the winner may see AlreadyExistsError.
        """
        self._put(key, data, IF_ABSENT if if_absent else NO_CONDITION)

    def replace(self, key: str, data: bytes, expected: bytes | None) -> None:
        """Write `data` to `key` if its content is still `expected`, by a conditional request.

        Tries beside the key first that the service honours the condition: some ignore it. Raise
        OutputError if it does.
        """
        found, etag = self._read_with_etag(key)
        if found != expected:
            raise _changed(below(self.uri, key))
        condition = self._honoured_condition(key, etag)
        try:
            self._put(key, data, condition)
        except RecapError:
            # An answer may be lost: boto3 sends the request again, which then fails although its
            # first try was done. And some services answer 500 to those that lose. The content
            # decides.
            now = read_or_none(self, key)
            if now == data:
                return
            if now != expected:
                raise _changed(below(self.uri, key)) from None
            raise

    def _read_with_etag(self, key: str) -> tuple[bytes | None, str]:
        """Return content and ETag of one version of the object; None if there is none."""
        try:
            with s3_errors(self._target(key)):
                found = self._client().get_object(Bucket=self._bucket, Key=self._name(key))
                return found["Body"].read(), _version(found)
        except MissingError:
            return None, ""

    def _honoured_condition(self, key: str, etag: str) -> Mapping[str, str]:
        """Return the condition "still this ETag", or "still nothing" without one.

        Return it in the form that the service honours, as a probe beside the key shows.
        """
        probe = below(key.rpartition("/")[0], f".recap-probe-{uuid.uuid4().hex}")
        self._put(probe, PROBE)
        try:
            if not etag:
                if not self._accepts(probe, IF_ABSENT):
                    return IF_ABSENT
            else:
                right = self.stat(probe).version
                # HTTP wants quotes. There are services that match an ETag without them only.
                for form in ('"{}"', "{}"):
                    is_guarded = not self._accepts(probe, {"IfMatch": form.format(WRONG_ETAG)})
                    if is_guarded and self._accepts(probe, {"IfMatch": form.format(right)}):
                        return {"IfMatch": form.format(etag)}
        finally:
            self.delete(probe)
        raise OutputError(
            f"{below(self.uri, key)}: this service does not honour conditional writes, so of two "
            "that write at once one would be lost: keep this file at a service that does (AWS S3 "
            "and most others), on the Hub, or on a file system"
        )

    def _accepts(self, key: str, condition: Mapping[str, str]) -> bool:
        try:
            self._put(key, PROBE, condition)
        except AlreadyExistsError:
            return False
        return True

    def _put(self, key: str, data: bytes, condition: Mapping[str, str] = NO_CONDITION) -> None:
        from botocore.exceptions import ClientError

        name = self._name(key)
        # One request is atomic, and a condition holds for the whole of it. Of several conditional
        # writes at once, S3 answers 412 to those that lose, or 409 if it cannot tell yet who wins.
        with s3_errors(self._target(key, writes=True)):
            for attempt in range(MAX_TRIES_AFTER_CONFLICT):
                try:
                    self._client().put_object(Bucket=self._bucket, Key=name, Body=data, **condition)
                    return
                except ClientError as error:
                    is_last = attempt == MAX_TRIES_AFTER_CONFLICT - 1
                    if status_of(error.response) != CONFLICT or is_last:
                        raise
                    self._sleep(FIRST_WAIT_SECONDS * 2**attempt)

    def delete(self, key: str) -> None:
        """Delete the object. S3 does not report if there was none."""
        name = self._name(key)
        with s3_errors(self._target(key, writes=True)):
            self._client().delete_object(Bucket=self._bucket, Key=name)

    def seconds_ahead(self) -> float | None:
        """Return by how much this machine's clock is ahead of the service's, in seconds.

        Return None if the service sends no date. An answer has one also if it refuses.
        """
        from botocore.exceptions import ClientError

        with s3_errors(self._target("")):
            try:
                return seconds_ahead(self._client().head_bucket(Bucket=self._bucket))
            except ClientError as error:
                return seconds_ahead(error.response)

    def _name(self, key: str) -> str:
        """Return the key in the bucket."""
        return below(self._prefix, check_key(key, self.uri))

    def _target(self, key: str, writes: bool = False) -> Target:
        service = self._options.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3")
        service = service or os.environ.get("AWS_ENDPOINT_URL") or "AWS S3"
        return Target(below(self.uri, key) if key else self.uri, without_login(service), writes)

    def _client(self) -> Any:
        process = os.getpid()
        # Two threads may both create a client: the last one stays, and either works.
        if process not in self._clients:
            self._clients = {process: self._new_client()}
        return self._clients[process]

    def _new_client(self) -> Any:
        import boto3
        from botocore.config import Config

        transfer = self._transfer
        config = Config(
            retries={"mode": "standard", "total_max_attempts": transfer.tries},
            connect_timeout=transfer.connect_seconds,
            read_timeout=self._options.timeout_seconds,
            max_pool_connections=4 * transfer.parts_at_once,  # several files at a time
            # Compatible services ignore or refuse the newer checksums. recap has its own digests.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": self._options.addressing_style},
        )
        with s3_errors(self._target("")):
            try:
                session = boto3.session.Session(
                    region_name=self._options.region,
                    botocore_session=new_session(),
                )
                return session.client("s3", endpoint_url=self._options.endpoint_url, config=config)
            except ValueError as error:
                raise ConfigError(
                    f"{self.uri}: S3 cannot be used as configured: {without_login(str(error))}"
                ) from error

    def _transfer_config(self) -> Any:
        from boto3.s3.transfer import TransferConfig

        return TransferConfig(
            multipart_threshold=self._transfer.part_bytes,
            multipart_chunksize=self._transfer.part_bytes,
            max_concurrency=self._transfer.parts_at_once,
            num_download_attempts=self._transfer.tries,
            # By default boto3 uses another client on some instances if awscrt is installed. It
            # ignores endpoint_url (docs/decisions/0041-one-client-moves-files-to-s3.md).
            preferred_transfer_client="classic",
        )


def _changed(uri: str) -> ChangedError:
    return ChangedError(f"{uri} changed meanwhile")


def _version(found: Mapping[str, Any]) -> str:
    """Return the ETag, or time and size: some services have no ETag for multipart objects."""
    etag = str(found.get("ETag", "")).strip('"')
    return etag or f"{found['LastModified'].isoformat()}-{_size(found)}"


def _size(found: Mapping[str, Any]) -> int:
    """Return the size, which has one name in a listing and another in an answer to HEAD."""
    return int(found["Size"] if "Size" in found else found["ContentLength"])
