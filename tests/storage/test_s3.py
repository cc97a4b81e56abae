"""Claims about S3 that refuses, is busy, breaks off, sends wrong lengths, or is not S3."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from job.config.sections import StorageSection
from job.errors import (
    AlreadyExistsError,
    ConfigError,
    DataError,
    ExitCode,
    ForbiddenError,
    MissingError,
    OutputError,
    RetryError,
)
from job.storage.folders import fetch_prefix, publish_folder
from job.storage.open import open_store
from job.storage.s3 import S3Store, Transfer
from tests.storage.conftest import SMALL
from tests.storage.services import answering

WRITERS = 4
pytestmark = pytest.mark.usefixtures("aws_environment")
QUICK = Transfer(tries=2, connect_seconds=2)
CONTENT = bytes(range(256)) * 2000


def store_at(
    endpoint: str, transfer: Transfer = QUICK, sleep: Callable[[float], None] = lambda seconds: None
) -> S3Store:
    options = StorageSection(endpoint_url=endpoint, addressing_style="path", timeout_seconds=5)
    return S3Store("s3://bucket/prefix", options, transfer, sleep)


def serving(
    content: bytes,
    breaks_after: int | None = None,
    etags: tuple[str, ...] = ("one",),
    asked: list[str] | None = None,
) -> Callable[[BaseHTTPRequestHandler], None]:
    """Return a service with one object.

    Each answer breaks off after some bytes, and has the next of `etags`.
    """
    answered: list[int] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")
        first, last = int(wanted[0]), int(wanted[1] or len(content) - 1)
        body = content[first : min(last, len(content) - 1) + 1]
        request.send_response(206 if "Range" in request.headers else 200)
        request.send_header("Content-Length", str(len(body)))
        request.send_header(
            "Content-Range", f"bytes {first}-{first + len(body) - 1}/{len(content)}"
        )
        request.send_header("ETag", f'"{etags[min(len(answered), len(etags) - 1)]}"')
        request.send_header("Last-Modified", "Tue, 24 Nov 2026 00:00:00 GMT")
        request.end_headers()
        if request.command == "GET":
            answered.append(first)
            if asked is not None:
                asked.append(request.headers.get("Range", "whole"))
            request.wfile.write(body[:breaks_after])

    return answer


def everything(store: S3Store, folder: Path) -> list[Callable[[], object]]:
    (folder / "source").write_bytes(b"x")
    return [
        lambda: store.stat("a"),
        lambda: list(store.list()),
        lambda: store.read("a"),
        lambda: store.download("a", folder / "target"),
        lambda: store.upload(folder / "source", "a"),
        lambda: store.write("a", b"x"),
        lambda: store.delete("a"),
    ]


def test_a_refusal_names_the_permissions_that_are_missing(serve, tmp_path):
    for action in everything(store_at(serve(answering(403, "AccessDenied"))), tmp_path):
        with pytest.raises(
            ForbiddenError, match=r"s3://bucket/prefix.* answered 403.*allow s3:"
        ) as caught:
            action()
        assert caught.value.exit_code == ExitCode.FORBIDDEN
        assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)
    with pytest.raises(
        ForbiddenError,
        match="without s3:ListBucket an object that is not there is answered the same",
    ):
        store_at(serve(answering(403, "AccessDenied"))).stat("a")


def test_a_dead_endpoint_ends_in_retry_after_bounded_tries(tmp_path):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and never listens
        store = store_at(f"http://127.0.0.1:{bound.getsockname()[1]}")
        for action in everything(store, tmp_path):
            with pytest.raises(
                RetryError, match=r"cannot be reached.*storage\.endpoint_url"
            ) as caught:
                action()
            assert caught.value.exit_code == ExitCode.RETRY
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize(
    ("query", "kind", "message"),
    [
        ("", RetryError, "{0} cannot be reached"),
        ("?sig=signature", ConfigError, "Custom endpoint `{0}` was not a valid"),
    ],
)
def test_a_login_in_the_services_url_is_in_no_message(monkeypatch, query, kind, message):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://me:password@127.0.0.1:{port}/{query}")
        with pytest.raises(kind) as caught:
            S3Store("s3://bucket/prefix", StorageSection(addressing_style="path"), QUICK).read("a")
    assert message.format(f"http://127.0.0.1:{port}/") in str(caught.value)
    assert "password" not in str(caught.value)
    assert "signature" not in str(caught.value)


def test_a_busy_service_gets_a_bounded_number_of_requests(serve):
    asked: list[str] = []
    with pytest.raises(RetryError, match="answered 503 SlowDown, also after retries"):
        store_at(serve(answering(503, "SlowDown", asked))).read("a")
    assert len(asked) == QUICK.tries


@pytest.mark.parametrize(
    ("status", "code", "error", "words"),
    [
        (404, "NoSuchBucket", MissingError, "no such bucket"),
        (404, "NoSuchKey", MissingError, "no such object"),
        (400, "ExpiredToken", ForbiddenError, "renew them"),
        (403, "RequestTimeTooSkewed", ForbiddenError, "clock"),
        (403, "QuotaExceeded", OutputError, "make room"),
        (507, "", OutputError, "make room"),
        (400, "AuthorizationHeaderMalformed", ConfigError, r"storage\.region"),
        (400, "EntityTooLarge", OutputError, "check the URI"),
        (500, "InternalError", RetryError, "run again"),
    ],
)
def test_an_error_has_the_status_and_code_of_the_answer(serve, status, code, error, words):
    with pytest.raises(error, match=words) as caught:
        store_at(serve(answering(status, code))).write("a", b"x")
    assert type(caught.value) is error


def test_without_credentials_the_remedy_is_named(aws_environment, s3):
    aws_environment.delenv("AWS_ACCESS_KEY_ID")
    aws_environment.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ForbiddenError, match=r"no usable AWS credentials.*AWS_ACCESS_KEY_ID"):
        open_store(s3.uri).stat("a")


def test_a_bucket_that_does_not_exist_is_missing(s3, tmp_path):
    store = S3Store("s3://no-such-bucket/prefix", transfer=QUICK)
    (tmp_path / "source").write_bytes(b"x")
    for action in (
        lambda: list(store.list()),
        lambda: store.write("a", b""),
        lambda: store.stat("a"),
    ):
        with pytest.raises(MissingError, match="no such bucket"):
            action()


def test_a_service_that_is_not_s3_is_a_mistake_of_the_config(serve):
    def web_page(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(b"<html><body>Welcome</body></html>")

    with pytest.raises(ConfigError, match="does not speak S3"):
        list(store_at(serve(web_page)).list())
    with pytest.raises(ConfigError, match="cannot be used as configured"):
        store_at("not a url").stat("a")


def test_the_config_names_the_service_before_the_environment_does(s3, serve):
    s3.client().put_object(Bucket=s3.bucket, Key="a", Body=b"x")
    assert open_store(s3.uri).read("a") == b"x"
    with pytest.raises(ForbiddenError):
        open_store(s3.uri, StorageSection(endpoint_url=serve(answering(403, "AccessDenied")))).read(
            "a"
        )


def test_a_download_that_breaks_off_leaves_nothing(serve, tmp_path):
    store = store_at(serve(serving(CONTENT, breaks_after=len(CONTENT) // 2)))
    with pytest.raises(RetryError, match="broke off more often than retries allow"):
        store.download("a", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_a_download_of_another_size_than_announced_leaves_nothing(serve, tmp_path):
    heads: list[int] = []

    def shrinking(request: BaseHTTPRequestHandler) -> None:
        heads.append(1)
        serving(CONTENT if len(heads) == 1 else CONTENT[:1000])(request)

    with pytest.raises(RetryError, match="got 1000 bytes, wanted 512000"):
        store_at(serve(shrinking)).download("a", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_a_stream_resumes_after_a_dropped_connection(serve):
    asked: list[str] = []
    with store_at(serve(serving(CONTENT, breaks_after=200_000, asked=asked))).open("a") as stream:
        assert stream.read() == CONTENT
    assert asked == ["whole", "bytes=200000-", "bytes=400000-"]


def test_a_stream_that_gets_nothing_more_gives_up(serve):
    asked: list[str] = []
    service = serve(serving(CONTENT, breaks_after=0, asked=asked))
    with store_at(service).open("a") as stream, pytest.raises(RetryError, match="breaks off"):
        stream.read()
    assert len(asked) == QUICK.tries


def test_a_stream_never_mixes_two_versions_of_an_object(serve):
    service = serve(serving(CONTENT, breaks_after=200_000, etags=("one", "two")))
    with (
        store_at(service).open("a") as stream,
        pytest.raises(RetryError, match="was replaced while it was read"),
    ):
        stream.read()


def test_a_failed_upload_leaves_no_parts_and_no_object(s3, tmp_path):
    (tmp_path / "source").write_bytes(os.urandom(1 << 20) * 12)

    def fail_half_way(count: int, sent: list[int] = []) -> None:  # noqa: B006
        sent.append(count)
        if sum(sent) > 6 << 20:
            raise OutputError("as the test wants")

    with pytest.raises(OutputError, match="as the test wants"):
        S3Store(s3.uri, transfer=SMALL).upload(tmp_path / "source", "a", fail_half_way)
    assert "Uploads" not in s3.client().list_multipart_uploads(Bucket=s3.bucket)
    assert list(S3Store(s3.uri).list()) == []


def test_a_conflict_of_guarded_writes_is_tried_again_a_few_times(serve):
    asked: list[str] = []
    waits: list[float] = []
    store = store_at(serve(answering(409, "ConditionalRequestConflict", asked)), sleep=waits.append)
    with pytest.raises(RetryError, match="others write there at the same time"):
        store.write("a", b"x", if_absent=True)
    assert len(asked) == 5
    assert waits == sorted(waits)
    assert len(waits) == 4


@pytest.mark.parametrize("key", ["../../escaped", "a/../../../escaped", "a\\..\\escaped", "a//b"])
def test_a_hostile_key_in_a_listing_writes_nothing_outside(s3, tmp_path, key):
    s3.client().put_object(Bucket=s3.bucket, Key=f"models/{key}", Body=b"x")
    store = S3Store(f"{s3.uri}/models")
    with pytest.raises(DataError, match=r"recap makes paths of keys") as caught:
        fetch_prefix(store, "", tmp_path / "deep" / "target", ("*",))
    assert repr(key) in str(caught.value)
    assert caught.value.exit_code == ExitCode.DATA
    assert list(tmp_path.iterdir()) == []


def test_a_folder_made_in_a_console_is_no_file(s3):
    for key in ("data/", "data/day/", "data/day/a.jsonl"):
        s3.client().put_object(Bucket=s3.bucket, Key=key, Body=b"")
    assert [entry.key for entry in S3Store(f"{s3.uri}/data").list()] == ["day/a.jsonl"]


def test_an_upload_that_fails_leaves_a_folder_without_manifest(s3, tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 1000)
    store = S3Store(f"{s3.uri}/run")
    publish_folder(tmp_path, store, "", {"attempt": 1})

    def fail(count: int) -> None:
        raise RetryError("as the test wants")

    with pytest.raises(RetryError):
        publish_folder(tmp_path, store, "", {"attempt": 2}, fail)
    with pytest.raises(MissingError):
        store.stat("manifest.json")


def test_a_store_works_on_both_sides_of_a_fork(serve):
    def keep_open(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = False
        body = request.path[-1].encode() * 50_000
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    script = f"""
import os
from job.config.sections import StorageSection
from job.storage.s3 import S3Store
options = StorageSection(endpoint_url={serve(keep_open)!r}, addressing_style="path")
store = S3Store("s3://bucket", options)
# An open connection stays, which both sides would use if they shared the client.
store.read("a")
child = os.fork()
key = "a" if child else "b"
right = all(store.read(key) == key.encode() * 50_000 for _ in range(20))
if not child:
    os._exit(0 if right else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert right
"""
    ended = subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    assert ended.returncode == 0


def test_the_server_of_the_tests_compares_and_writes_in_one_step(s3, monkeypatch):
    from moto.s3.models import S3Backend

    put = S3Backend.put_object

    def late(*arguments: Any, **named: Any) -> Any:
        time.sleep(0.05)  # after the comparison, for others to compare meanwhile
        return put(*arguments, **named)

    monkeypatch.setattr(S3Backend, "put_object", late)
    start = threading.Barrier(WRITERS)

    def won(_: int) -> bool:
        store = open_store(s3.uri)
        start.wait()
        try:
            store.write("raced", b"x", if_absent=True)
        except AlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(WRITERS) as pool:
        assert sum(pool.map(won, range(WRITERS))) == 1
