"""The demo: the whole story on this machine, told by the real commands.

A folder of examples → an S3 server on loopback, and against it exactly what a container runs: `recap train`, `recap
evaluate`, `recap summarize` → a closing screen, and a copy of all that they left. Needs no GPU, no account and no
network. Knows nothing of how the commands work: it sees what they print, how they end, and what they leave in S3.
"""

import errno
import logging
import os
import pty
import signal
import subprocess
import sys
import tempfile
import termios
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import Any, BinaryIO

from job.demo.closing import closing_screen
from job.errors import ExitCode, MissingError, OutputError, PreemptedError, RecapError
from job.safe_path import safe_variables

BUCKET = "recap-demo"
COMMANDS = ("train", "evaluate", "summarize")
RECAP = (sys.executable, "-m", "job")
SECONDS_TO_STOP = 30.0  # a command ends its own children within limits.grace_seconds, which is less
KEYS = {".yaml": "configs/", ".jsonl": "data/"}  # prefix in the bucket, by the file's suffix
CREDENTIALS = "demo"  # the server takes any; nothing outside this machine is asked


def run_demo(
    work: Path | None = None, examples: Path | None = None, program: Sequence[str] = RECAP
) -> None:
    """Run the story, and leave a copy of the bucket and the commands' logs below `work` (./demo-run).

    `examples` holds what is uploaded (the package's own), `program` is the start of each command line. A command that
    fails ends the demo with its exit code; a stop signal is passed on to it and ends as PreemptedError.
    """
    started = time.monotonic()
    work, examples = work or Path("demo-run"), examples or example_folder()
    logs = _emptied(work)
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="recap-demo-") as scratch, s3_server() as endpoint:
        client = demo_bucket(endpoint)
        _tell(
            f"An S3 server listens on {endpoint}; s3://{BUCKET} gets {upload(client, examples)} files."
        )
        environment = _environment(endpoint, scratch)
        try:
            for command in COMMANDS:
                seconds[command] = _run(command, program, environment, logs / f"{command}.log")
        finally:
            _download(client, work / "bucket")
    _tell("\n" + closing_screen(work, examples, seconds | {"in all": time.monotonic() - started}))


def example_folder() -> Path:
    """The folder of example configs, conversations and base: in a checkout, or inside an installed package."""
    package = Path(__file__).parent
    candidates = package.parent.parent / "examples" / "demo", package / "files"
    for folder in candidates:
        if (folder / "train.yaml").is_file():
            return folder
    raise MissingError(
        f"the demo's files are in neither {candidates[0]} nor {candidates[1]}: install recap from a wheel, or run the "
        "demo in a checkout"
    )


@contextmanager
def s3_server() -> Iterator[str]:
    """An empty S3 server on a free loopback port while the block runs; yields its URL."""
    try:
        from moto.server import ThreadedMotoServer
    except ImportError as error:
        message = (
            "the demo needs an S3 server (moto), and it is not installed: pip install 'recap[demo]'"
        )
        raise MissingError(message) from error
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else a line per request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        reset = urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(reset).close()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def demo_bucket(endpoint: str) -> Any:
    """Make the demo's bucket at `endpoint`; boto3's client of it, which no account or proxy of this machine reaches."""
    from boto3 import Session
    from botocore.config import Config
    from botocore.session import Session as Settings

    nothing = {"profile": (None, None, None, None), "config_file": (None, None, os.devnull, None)}
    client = Session(
        botocore_session=Settings(nothing)
    ).client(  # a profile of this machine is not looked for
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=CREDENTIALS,
        aws_secret_access_key=CREDENTIALS,
        config=Config(proxies={}),  # loopback, whatever proxy this machine has
    )
    client.create_bucket(Bucket=BUCKET)
    return client


def upload(client: Any, examples: Path) -> int:
    """Upload the configs, conversations and base to where the configs look; return the number of files."""
    keys = {
        path: KEYS[path.suffix] + path.name for path in examples.iterdir() if path.suffix in KEYS
    }
    for path in (examples / "base").rglob("*"):
        if path.is_file():
            keys[path] = path.relative_to(examples).as_posix()
    for path, key in sorted(keys.items()):
        client.upload_file(str(path), BUCKET, key)
    return len(keys)


def _emptied(work: Path) -> Path:
    """Take away what the last demo left, and only that; the folder for logs."""
    try:
        for name in ("bucket", "logs"):
            rmtree(work / name, ignore_errors=True)
        (work / "logs").mkdir(parents=True)
    except OSError as error:
        raise OutputError(
            f"{work}: the demo cannot put its files there ({error.strerror}): run it in a writable folder"
        ) from error
    return work / "logs"


def _download(client: Any, target: Path) -> None:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for entry in page.get("Contents", []):
            path = target / entry["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(BUCKET, entry["Key"], str(path))


def _environment(endpoint: str, scratch: str) -> dict[str, str]:
    """What the commands see: the demo's S3 service, and nothing of this machine's accounts, proxies or caches."""
    foreign = ("AWS_", "RECAP_", "HF_")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(foreign) and not name.lower().endswith("_proxy")
    }
    return (
        kept
        | safe_variables(kept)
        | {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": CREDENTIALS,
            "AWS_SECRET_ACCESS_KEY": CREDENTIALS,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "RECAP_CACHE": scratch,
        }
    )


def _run(command: str, program: Sequence[str], environment: dict[str, str], log: Path) -> float:
    """Run one command to its end; its seconds."""
    arguments = (command, f"s3://{BUCKET}/configs/{command}.yaml")
    _tell(f"\n$ recap {' '.join(arguments)}")
    started = time.monotonic()
    try:
        code = _run_aloud([*program, *arguments], environment, log)
    except KeyboardInterrupt as error:
        raise PreemptedError(
            f"the demo was stopped in `recap {command}`; its output is in {log}"
        ) from error
    if code:
        failed = RecapError(f"`recap {command}` ended with exit code {code}: see above, or {log}")
        with suppress(ValueError):  # a signal or an unknown code stays a bug
            failed.exit_code = ExitCode(code)
        raise failed
    return time.monotonic() - started


def _run_aloud(command: Sequence[str], environment: dict[str, str], log: Path) -> int:
    """Run with the output here, as it comes, and in `log`; the exit code. A stop signal is passed on, then raised."""
    output, childs_end = _channel()
    with open(output, "rb", buffering=0) as source, log.open("wb") as copy, _sigterm_interrupts():
        try:
            child = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=childs_end,
                stderr=childs_end,
                start_new_session=True,  # a stop signal reaches it once, through us
            )
        finally:
            os.close(childs_end)
        try:
            _pass_on(source, copy)
            return child.wait()
        except KeyboardInterrupt:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(SECONDS_TO_STOP)
            raise
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def _channel() -> tuple[int, int]:
    """The two ends of a command's output: a terminal like ours, so that it draws progress bars, or else a pipe."""
    if not sys.stdout.isatty():
        return os.pipe()
    output, childs_end = pty.openpty()
    termios.tcsetwinsize(childs_end, termios.tcgetwinsize(sys.stdout))
    return output, childs_end


def _pass_on(source: BinaryIO, copy: BinaryIO) -> None:
    while True:
        try:
            block = source.read(65536)
        except OSError as error:
            if (
                error.errno != errno.EIO
            ):  # how Linux says that nobody holds the other end of a terminal any more
                raise
            return
        if not block:
            return
        copy.write(block)
        sys.stdout.buffer.write(block)
        sys.stdout.flush()


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does, so that no command outlives the demo."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(text: str) -> None:
    print(text, flush=True)
