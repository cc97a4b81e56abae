"""What any test may use: a tiny real base; on loopback a real S3 protocol server, and a stand-in of the Hub."""

import os
import signal
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from job.telemetry import LOGGER
from tests.faults.trials import Trials
from tests.storage.hub_server import Hub
from tests.tiny import make_base

# A shell starts what it puts into the background with SIGINT ignored; what the tests start shall be interruptible.
signal.signal(signal.SIGINT, signal.default_int_handler)

ELSEWHERE = (
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL_S3",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
)


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """A command that ran in this process told its log to write to what pytest has closed by the next test."""
    before = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate
    yield
    LOGGER.handlers[:], LOGGER.level, LOGGER.propagate = before


@dataclass(frozen=True)
class S3:
    """A service and a bucket of the test's own; the environment names both service and credentials."""

    endpoint: str
    bucket: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}"

    def client(self) -> Any:
        """boto3's own client, for what recap would not do."""
        import boto3

        return boto3.session.Session().client("s3", endpoint_url=self.endpoint)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Credentials and region that mean nothing, and no way to anybody's account."""
    for name in ELSEWHERE:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing-key-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    return monkeypatch


@pytest.fixture
def s3(s3_endpoint: str, aws_environment: pytest.MonkeyPatch) -> S3:
    """S3 on loopback with a fresh bucket; `open_store(s3.uri)` finds it by the environment."""
    aws_environment.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    service = S3(s3_endpoint, f"test-{uuid.uuid4().hex[:12]}")
    bucket = urllib.request.Request(
        f"{s3_endpoint}/{service.bucket}", method="PUT"
    )  # a client takes far longer
    urllib.request.urlopen(bucket).close()
    return service


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty Hub on loopback; HF_ENDPOINT names it, and HF_TOKEN is one that it accepts."""
    from huggingface_hub import constants

    with Hub.started() as service:
        monkeypatch.setenv("HF_ENDPOINT", service.endpoint)
        monkeypatch.setenv("HF_TOKEN", service.token)
        # The library takes these from the environment when it is imported, which may be long ago.
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        for name, value in (
            ("HF_HUB_OFFLINE", "0"),
            ("HF_HUB_DISABLE_XET", "1"),
            ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ):
            monkeypatch.setenv(name, value)
        yield service


@pytest.fixture
def poisoned(tmp_path: Path) -> Path:
    """A folder of modules with the names of libraries; each writes down that it was imported."""
    folder = tmp_path / "poisoned"
    folder.mkdir()
    note = "open(__file__ + '.imported', 'w').close()\n"
    for name in ("accelerate", "click", "numpy", "psutil", "torch", "tqdm", "transformers", "yaml"):
        (folder / f"{name}.py").write_text(note)
    return folder


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base as it lies on disk: config, safetensors, tokenizer."""
    folder = tmp_path_factory.mktemp("base")
    make_base(folder)
    return folder


@pytest.fixture(scope="session")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    """Training processes that start at once, without the supervisor: the libraries are loaded only the first time."""
    with closing(Trials(tmp_path_factory.mktemp("trials"))) as server:
        yield server


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """A model this small is slower with more threads than with one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cache and work of this test alone; the folder where runs put what they need only while they run."""
    monkeypatch.setenv("RECAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RECAP_WORK", str(tmp_path / "work"))
    return tmp_path / "work"
