"""The store below an `s3://` prefix: `Store` over boto3, for AWS and compatible services.

A prefix always ends in a slash, so that `my/path` never reaches `my/path2`. Knows nothing of what the bytes mean.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from job.config.sections import StorageSection
from job.errors import ConfigError, RetryError
from job.storage.atomic import new_file, reading, writing
from job.storage.keys import below, check_key, relative_to, split_s3
from job.storage.s3_errors import Place, not_s3, s3_errors, status_of, without_login
from job.storage.s3_stream import open_stream
from job.storage.store import Entry, Progress, Skip, one_at_a_time

CONFLICT, CONFLICT_TRIES = 409, 5


@dataclass(frozen=True)
class Transfer:
    """How much is moved at once, and how long a service is waited for."""

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
        self._options, self._transfer, self._sleep = (
            options or StorageSection(),
            transfer or Transfer(),
            sleep,
        )
        self._clients: dict[
            int, Any
        ] = {}  # by process: a client's connections do not survive a fork

    def stat(self, key: str) -> Entry:
        """The entry at `key`."""
        name, place = self._name(key), self._place(key)
        with s3_errors(place):
            found = self._client().head_object(Bucket=self._bucket, Key=name)
        return Entry(key, found["ContentLength"], _version(found))

    def list(self, prefix: str = "", skip: Skip | None = None) -> Iterator[Entry]:
        """Every object below `prefix`, page by page; DataError for a key that must not become a path."""
        root = self._name(prefix) if prefix else self._prefix
        place = self._place(prefix)
        with s3_errors(place):
            pages = self._client().get_paginator("list_objects_v2")
            size = {"PageSize": self._transfer.keys_per_page}
            for page in pages.paginate(
                Bucket=self._bucket, Prefix=f"{root}/" if root else "", PaginationConfig=size
            ):
                if (
                    "Name" not in page and "KeyCount" not in page
                ):  # else a web page would pass for an empty prefix
                    raise not_s3(place)
                for found in page.get("Contents", ()):
                    if found["Key"].endswith("/") and not found["Size"]:
                        continue  # a console's sign for a folder
                    key = relative_to(self._prefix, found["Key"])
                    if skip is None or not skip(key):
                        yield Entry(check_key(key, self.uri), found["Size"], _version(found))

    def read(self, key: str) -> bytes:
        """The whole object."""
        with self.open(key) as stream:
            return stream.read()

    def open(self, key: str, start: int = 0) -> BinaryIO:
        """The object as a stream, which asks again where a connection breaks."""
        client, name = self._client(), self._name(key)

        def ask(first: int) -> Mapping[str, Any]:
            part = {"Range": f"bytes={first}-"} if first else {}
            answer: Mapping[str, Any] = client.get_object(Bucket=self._bucket, Key=name, **part)
            return answer

        return open_stream(ask, self._place(key), self._transfer.tries, start)

    def download(self, key: str, target: Path, progress: Progress | None = None) -> None:
        """Put the object at `target`, in parallel parts; RetryError if not all of it arrives."""
        wanted = self.stat(key).size
        name, place = self._name(key), self._place(key)
        told = one_at_a_time(progress) if progress else None
        with new_file(target) as file:
            with writing(target), s3_errors(place):
                if wanted:  # there is no range of an empty object to ask for
                    self._client().download_fileobj(
                        self._bucket, name, file, Callback=told, Config=self._transfer_config()
                    )
                got = file.seek(0, os.SEEK_END)
            if got != wanted:
                raise RetryError(
                    f"{place.uri}: got {got} bytes, wanted {wanted}: it changed meanwhile; run again"
                )

    def upload(self, source: Path, key: str, progress: Progress | None = None) -> None:
        """Put the file at `key`, in parallel parts if it is large; a failed upload leaves no parts behind."""
        name, place = self._name(key), self._place(key, writes=True)
        told = one_at_a_time(progress) if progress else None
        with reading(source):
            opened = source.open("rb")
        # By file object: by name, boto3 wraps errors in a message of its own, and status and code are lost.
        with opened, reading(source), s3_errors(place):
            self._client().upload_fileobj(
                opened, self._bucket, name, Callback=told, Config=self._transfer_config()
            )

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Put `data` at `key` in one request; with `if_absent` the service lets one of several writers win.

        An answer that is lost on the way makes boto3 ask again: the winner itself may then see AlreadyExistsError.
        """
        from botocore.exceptions import ClientError

        name, place = self._name(key), self._place(key, writes=True)
        guard = {"IfNoneMatch": "*"} if if_absent else {}
        with s3_errors(place):
            for attempt in range(CONFLICT_TRIES):
                try:
                    self._client().put_object(Bucket=self._bucket, Key=name, Body=data, **guard)
                    return
                except (
                    ClientError
                ) as error:  # 409: another guarded write of the same key is under way
                    if status_of(error.response) != CONFLICT or attempt == CONFLICT_TRIES - 1:
                        raise
                    self._sleep(0.1 * 2**attempt)

    def delete(self, key: str) -> None:
        """Remove the object."""
        name, place = self._name(key), self._place(key, writes=True)
        with s3_errors(place):
            self._client().delete_object(Bucket=self._bucket, Key=name)

    def _name(self, key: str) -> str:
        return below(self._prefix, check_key(key, self.uri))

    def _place(self, key: str, writes: bool = False) -> Place:
        service = self._options.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3")
        service = service or os.environ.get("AWS_ENDPOINT_URL") or "AWS S3"
        return Place(below(self.uri, key) if key else self.uri, without_login(service), writes)

    def _client(self) -> Any:
        process = os.getpid()
        if (
            process not in self._clients
        ):  # two threads may both make one: the last stays, either works
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
            max_pool_connections=4 * transfer.parts_at_once,  # several files are moved at once
            # Compatible services ignore or refuse the newer checksums; content is verified by recap's own digests.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": self._options.addressing_style},
        )
        with s3_errors(self._place("")):
            try:
                session = boto3.session.Session(
                    region_name=self._options.region, botocore_session=_session()
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
            preferred_transfer_client="classic",
        )


def _session() -> Any:
    """A session of its own, which finds its credentials anew."""
    import botocore.session

    session = botocore.session.Session()
    session.register_component("data_loader", _descriptions())
    return session


@cache
def _descriptions() -> Any:
    """What AWS's services are, which every session would read again: a fifth of a second for each store."""
    from botocore.loaders import create_loader

    return create_loader(os.environ.get("AWS_DATA_PATH"))


def _version(found: Mapping[str, Any]) -> str:
    """The ETag; some services give none for an object of several parts, so then the time and size."""
    return found.get("ETag", "").strip('"') or f"{found['LastModified'].isoformat()}-{_size(found)}"


def _size(found: Mapping[str, Any]) -> int:
    return int(found["Size"] if "Size" in found else found["ContentLength"])
