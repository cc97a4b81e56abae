"""The demo: the whole story on this machine, by the real commands.

Starts an S3 server on loopback and runs against it what a container runs: a training whose adapter
passes its gate, one whose adapter does not, an evaluation, and a night. It sees what the commands
print, their exit codes, and what they leave in S3. Needs no GPU, no account and no network.
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
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any, BinaryIO

from job.demo.closing import closing_screen
from job.errors import ExitCode, MissingError, OutputError, PreemptedError, RecapError
from job.safe_path import safe_variables

BUCKET = "recap-demo"
CHAMPION = f"s3://{BUCKET}/champions/demo.json"
RECAP = (sys.executable, "-m", "job")
# A command needs up to limits.grace_seconds, which is less, to stop its own children.
SECONDS_TO_STOP = 30.0
PREFIXES = {".yaml": "configs/", ".jsonl": "data/"}  # in the bucket, by the file's suffix
CREDENTIALS = "demo"  # the server accepts any, and no other service is asked
FOREIGN_VARIABLES = ("AWS_", "RECAP_", "HF_")  # the beginnings of names
READ_BYTES = 65536


@dataclass(frozen=True)
class Step:
    """A command of the story.

    `name` is that of its log and of its time, `code` the exit code with which it must end, and
    `shows` a sentence for those who watch.
    """

    name: str
    arguments: tuple[str, ...]
    shows: str
    code: ExitCode = ExitCode.DONE


def _config(command: str) -> tuple[str, str]:
    return command, f"s3://{BUCKET}/configs/{command}.yaml"


STEPS = (
    Step(
        "train",
        _config("train"),
        "Fine-tune, score what will serve, and judge it: it passes, and becomes the champion.",
    ),
    Step(
        "challenge",
        (*_config("train"), "--set", "run=demo-short", "--set", "training.max_steps=20"),
        "The same with too few steps. It must not serve: its gate ends the command with 76.",
        ExitCode.GATE,
    ),
    Step("champion", ("champion", "show", CHAMPION), "The champion is still the first adapter."),
    Step("evaluate", _config("evaluate"), "Score that one on conversations with other wording."),
    Step("summarize", _config("summarize"), "Run a night. It follows the champion."),
)


def run_demo(
    work: Path | None = None,
    examples: Path | None = None,
    program: Sequence[str] = RECAP,
) -> None:
    """Run the story; write a copy of the bucket and the commands' logs to `work` (./demo-run).

    `examples` is the folder to upload (by default recap's own), `program` the start of each command
    line. A command that fails ends the demo with its exit code. A stop signal is passed on to it
    and raised as PreemptedError.
    """
    started = time.monotonic()
    work = work or Path("demo-run")
    examples = examples or example_folder()
    logs = _clear(work)
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="recap-demo-") as scratch, s3_server() as endpoint:
        client = demo_bucket(endpoint)
        files = upload(client, examples)
        _print(f"An S3 server listens on {endpoint}; s3://{BUCKET} gets {files} files.")
        environment = _environment(endpoint, scratch)
        try:
            for step in STEPS:
                seconds[step.name] = _run(step, program, environment, logs)
        finally:
            _download(client, work / "bucket")
    seconds["in all"] = time.monotonic() - started
    _print("\n" + closing_screen(work, examples, seconds))


def example_folder() -> Path:
    """Return the folder of example configs, conversations and base.

    It is part of a checkout and of an installed package. Raises MissingError if neither is there.
    """
    package = Path(__file__).parent
    candidates = package.parent.parent / "examples" / "demo", package / "files"
    for folder in candidates:
        if (folder / "train.yaml").is_file():
            return folder
    raise MissingError(
        f"the demo's files are in neither {candidates[0]} nor {candidates[1]}: install recap from "
        "a wheel, or run the demo in a checkout"
    )


@contextmanager
def s3_server() -> Iterator[str]:
    """Run an empty S3 server on a free loopback port during the block; yield its URL."""
    try:
        from moto.server import ThreadedMotoServer
    except ImportError as error:
        raise MissingError(
            "the demo needs an S3 server (moto), and it is not installed: pip install 'recap[demo]'"
        ) from error
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else a line per request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        # moto's buckets outlive a server in the same process.
        reset = urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(reset).close()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def demo_bucket(endpoint: str) -> Any:
    """Create the demo's bucket at `endpoint`, and return a boto3 client for it.

    No account, profile or proxy of this machine has an effect on the client.
    """
    from boto3 import Session
    from botocore.config import Config
    from botocore.session import Session as BotocoreSession

    no_profile = {
        "profile": (None, None, None, None),
        "config_file": (None, None, os.devnull, None),
    }
    session = Session(botocore_session=BotocoreSession(no_profile))
    client = session.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=CREDENTIALS,
        aws_secret_access_key=CREDENTIALS,
        config=Config(proxies={}),
    )
    client.create_bucket(Bucket=BUCKET)
    return client


def upload(client: Any, examples: Path) -> int:
    """Upload configs, conversations and base to where the configs look; return their number."""
    keys = {}
    for path in examples.iterdir():
        if path.suffix in PREFIXES:
            keys[path] = PREFIXES[path.suffix] + path.name
    for path in (examples / "base").rglob("*"):
        if path.is_file():
            keys[path] = path.relative_to(examples).as_posix()
    for path, key in sorted(keys.items()):
        client.upload_file(str(path), BUCKET, key)
    return len(keys)


def _clear(work: Path) -> Path:
    """Delete what the last demo left, and nothing else; create the folder for logs, return it."""
    logs = work / "logs"
    try:
        for folder in (work / "bucket", logs):
            rmtree(folder, ignore_errors=True)
        logs.mkdir(parents=True)
    except OSError as error:
        raise OutputError(
            f"{work}: the demo cannot put its files there ({error.strerror}): run it in a "
            "writable folder"
        ) from error
    return logs


def _download(client: Any, target: Path) -> None:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for entry in page.get("Contents", []):
            path = target / entry["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(BUCKET, entry["Key"], str(path))


def _environment(endpoint: str, scratch: str) -> dict[str, str]:
    """Return the variables of the commands: the demo's S3 service in place of the machine's own.

    Without this machine's accounts, proxies and caches.
    """
    kept = {}
    for name, value in os.environ.items():
        if not name.startswith(FOREIGN_VARIABLES) and not name.lower().endswith("_proxy"):
            kept[name] = value
    own = {
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
        "RECAP_GPUS": "0",  # it is for machines without one, and uses one that works
    }
    return kept | safe_variables(kept) | own


def _run(step: Step, program: Sequence[str], environment: dict[str, str], logs: Path) -> float:
    """Run one command to its end; return its seconds. Raise RecapError if it ends otherwise."""
    command = f"recap {' '.join(step.arguments)}"
    log = logs / f"{step.name}.log"
    _print(f"\n# {step.shows}\n$ {command}")
    started = time.monotonic()
    try:
        code = _run_and_show([*program, *step.arguments], environment, log)
    except KeyboardInterrupt as error:
        raise PreemptedError(
            f"the demo was stopped in `{command}`; its output is in {log}"
        ) from error
    if code != step.code:
        wanted = f", not with {step.code}" if step.code else ""
        failed = RecapError(f"`{command}` ended with exit code {code}{wanted}: see above, or {log}")
        with suppress(ValueError):  # a signal or an unknown code stays a bug
            failed.exit_code = ExitCode(code or ExitCode.BUG)
        raise failed
    if code:
        _print(f"(exit code {code})")
    return time.monotonic() - started


def _run_and_show(command: Sequence[str], environment: dict[str, str], log: Path) -> int:
    """Run a command, print its output at once and copy it to `log`; return the exit code.

    A stop signal is passed on to the command, and then raised as KeyboardInterrupt.
    """
    output, childs_end = _open_channel()
    with open(output, "rb", buffering=0) as source, log.open("wb") as copy, _sigterm_interrupts():
        try:
            child = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=childs_end,
                stderr=childs_end,
                # Ctrl-C in a terminal reaches every process of a session. This one is to receive
                # the signal once, from here.
                start_new_session=True,
            )
        finally:
            # Else the output has no end: this process would hold it open, too.
            os.close(childs_end)
        try:
            _show(source, copy)
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


def _open_channel() -> tuple[int, int]:
    """Return the two ends of a channel for output: where to read it, and the command's end.

    A terminal if this process has one, so that the command draws progress bars; else a pipe.
    """
    if not sys.stdout.isatty():
        return os.pipe()
    output, childs_end = pty.openpty()
    termios.tcsetwinsize(childs_end, termios.tcgetwinsize(sys.stdout))
    return output, childs_end


def _show(source: BinaryIO, copy: BinaryIO) -> None:
    """Print the output until its end, and copy it."""
    while True:
        try:
            block = source.read(READ_BYTES)
        except OSError as error:
            # Linux's way to say that nobody holds the other end of a terminal any more.
            if error.errno == errno.EIO:
                return
            raise
        if not block:
            return
        copy.write(block)
        sys.stdout.buffer.write(block)
        sys.stdout.flush()


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does during the block, so that no command outlives the demo."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _print(text: str) -> None:
    print(text, flush=True)
