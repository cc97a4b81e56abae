"""Fixtures for every test: a tiny real base, and S3 and the Hub on loopback.

S3 is a server of the real protocol; the Hub is a stand-in.
"""

import gc
import os
import signal
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from job.cli import run
from job.model.libraries import importing, without_compiler
from job.storage.aws_session import new_session
from job.telemetry import LOGGER
from tests.chromium import Tab, open_chromium
from tests.command_line import Ended, Recap
from tests.faults.trials import Trials
from tests.storage.hub_server import Hub
from tests.storage.s3_server import running_s3
from tests.tiny import make_base

# A shell starts background jobs with SIGINT ignored, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# By default, a collection of the youngest objects begins with every 700 of them. Tests make few
# cycles, and those that claim what is garbage collect it themselves.
gc.set_threshold(10_000)

# The folders with the longest tests start first, so that no worker is left with one at the end.
SLOW_FOLDERS = ("tests/training/", "tests/bases/", "tests/demo/", "tests/faults/", "tests/infra/")

# Variables that could lead to another service, or to somebody's account.
VARIABLES_OF_OTHER_SERVICES = (
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL_S3",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Import libraries and tests without what takes seconds and that no test needs.

    The garbage collector would look at millions of objects that stay, and bitsandbytes would
    import torch's compiler.
    """
    with importing(), without_compiler():
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the slow folders first."""
    items.sort(key=lambda item: not item.nodeid.startswith(SLOW_FOLDERS))


@pytest.fixture(autouse=True)
def _restore_the_log() -> Iterator[None]:
    """Undo `configure_logging` of a command that ran in this process.

    Its handler writes to a stream that pytest has closed by the next test.
    """
    handlers = LOGGER.handlers[:]
    level = LOGGER.level
    propagate = LOGGER.propagate
    yield
    LOGGER.handlers[:] = handlers
    LOGGER.level = level
    LOGGER.propagate = propagate


@dataclass(frozen=True)
class S3:
    """A service with a bucket of the test's own. The environment has endpoint and credentials."""

    endpoint: str
    bucket: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}"

    def client(self) -> Any:
        """Return a client of boto3, for operations that recap does not do."""
        import boto3

        session = boto3.session.Session(botocore_session=new_session())
        return session.client("s3", endpoint_url=self.endpoint)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The embedded S3 server, one per test process."""
    with running_s3() as endpoint:
        yield endpoint


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Credentials and a region without meaning, so that no request reaches a real account."""
    for name in VARIABLES_OF_OTHER_SERVICES:
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
    """S3 on loopback with a fresh bucket. `open_store(s3.uri)` finds it by the environment."""
    aws_environment.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    service = S3(s3_endpoint, f"test-{uuid.uuid4().hex[:12]}")
    # Without boto3, whose client takes far longer to make.
    create = urllib.request.Request(f"{s3_endpoint}/{service.bucket}", method="PUT")
    urllib.request.urlopen(create).close()
    return service


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty Hub on loopback, named by HF_ENDPOINT, with a token that it accepts in HF_TOKEN."""
    from huggingface_hub import constants

    with Hub.started() as service:
        monkeypatch.setenv("HF_ENDPOINT", service.endpoint)
        monkeypatch.setenv("HF_TOKEN", service.token)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        # The library has read these variables when it was imported, which may be long ago.
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield service


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[BaseHTTPRequestHandler], None]], str]]:
    """Start a service on loopback that answers every request by a function, and return its URL."""
    servers = []

    def start(answer: Callable[[BaseHTTPRequestHandler], None]) -> str:
        def speak(self: BaseHTTPRequestHandler) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            self.body = self.rfile.read(length)
            self.close_connection = True
            answer(self)

        methods = {f"do_{method}": speak for method in ("GET", "HEAD", "PUT", "POST", "DELETE")}
        ways = {"protocol_version": "HTTP/1.1", "log_message": lambda self, *args: None}
        speaker = type("Speaker", (BaseHTTPRequestHandler,), methods | ways)
        server = ThreadingHTTPServer(("127.0.0.1", 0), speaker)
        server.daemon_threads = True
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def poisoned(tmp_path: Path) -> Path:
    """A folder of modules named like libraries, each of which leaves a file when it is imported."""
    folder = tmp_path / "poisoned"
    folder.mkdir()
    note = "open(__file__ + '.imported', 'w').close()\n"
    for name in ("accelerate", "click", "numpy", "psutil", "torch", "tqdm", "transformers", "yaml"):
        (folder / f"{name}.py").write_text(note)
    return folder


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base on disk: config, safetensors, tokenizer."""
    folder = tmp_path_factory.mktemp("base")
    make_base(folder)
    return folder


@pytest.fixture(scope="session")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    """Training processes without supervisor. The libraries are loaded only for the first one."""
    with closing(Trials(tmp_path_factory.mktemp("trials"))) as server:
        yield server


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Compute on one thread: a model this small is slower with more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a cache and a work folder of its own, and return the work folder."""
    monkeypatch.setenv("RECAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RECAP_WORK", str(tmp_path / "work"))
    return tmp_path / "work"


@pytest.fixture
def recap(
    capsys: pytest.CaptureFixture[str], places: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Recap]:
    """Run `recap` with these words in this process, which is much faster than in one of its own.

    The environment holds no variables of recap but the places of the test.
    """
    for name in list(os.environ):
        if name.startswith("RECAP_") and name not in ("RECAP_CACHE", "RECAP_WORK"):
            monkeypatch.delenv(name)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)}

    def call(*words: object) -> Ended:
        code = run([str(word) for word in words])
        printed = capsys.readouterr()
        return Ended(code, printed.out, printed.err)

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def tab() -> Iterator[Tab]:
    """A tab of the Chromium that RECAP_CHROMIUM names, or of Debian's."""
    program = os.environ.get("RECAP_CHROMIUM", "/usr/bin/chromium")
    assert Path(program).exists(), f"there is no {program}: `make test-quality` installs it"
    with open_chromium(program) as tab:
        yield tab
