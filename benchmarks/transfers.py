"""Compare S3 transfers by recap with `aws s3 cp`.

`python -m benchmarks.transfers [--mebibytes N] [--repeats N]` moves a file up and down by turns,
over loopback, each way in a process of its own. Every process has a second to start: the time of
the same with a file of one byte is taken off. What is uploaded goes to a server that forgets it,
since one that keeps it takes ten times the CPU time of a client. It prints a line per round, and
for each direction the median ratio of the rates. At least 0.95 of the rate of `aws s3 cp` is
wanted, which `make build/aws/bin/aws` installs.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.forgetful_s3 import forgetful_server
from benchmarks.pairs import quartiles, ratios, run_by_turns
from job.demo.story import BUCKET, CREDENTIALS, demo_bucket, s3_server
from job.storage.s3 import S3Store

AWS = Path(__file__).parent.parent / "build" / "aws" / "bin" / "aws"
WANTED = 0.95  # of the rate of `aws s3 cp`
CLIENT = "--client"


def main() -> None:
    """Move a file by turns, and print the ratios."""
    if sys.argv[1:2] == [CLIENT]:
        move_by_recap(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=4)
    options = parser.parse_args()

    clients: dict[str, Sequence[str]] = {
        "recap": (sys.executable, "-m", "benchmarks.transfers", CLIENT),
        "aws s3 cp": (str(AWS), "s3", "cp", "--only-show-errors"),
    }
    with TemporaryDirectory() as folder, s3_server() as keeping, forgetful_server() as forgetting:
        files = _files(Path(folder), options.mebibytes)
        client = demo_bucket(keeping)
        for name, file in files.items():
            client.upload_file(str(file), BUCKET, name)
        for direction, endpoint in {"upload": forgetting, "download": keeping}.items():
            ways = {}
            for name, command in clients.items():
                ways[name] = _way(command, direction, files, _environment(endpoint))
            _report(direction, run_by_turns(ways, options.repeats))


def move_by_recap(source: str, target: str) -> None:
    """Upload or download one object, as `aws s3 cp` would."""
    store = S3Store(f"s3://{BUCKET}")
    prefix = f"{store.uri}/"
    if target.startswith(prefix):
        store.upload(Path(source), target.removeprefix(prefix))
    else:
        store.download(source.removeprefix(prefix), Path(target))


def _files(folder: Path, mebibytes: int) -> dict[str, Path]:
    files = {"large": folder / "large", "small": folder / "small"}
    files["small"].write_bytes(b"1")
    with files["large"].open("wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(1 << 20))
    return files


def _environment(endpoint: str) -> dict[str, str]:
    kept = {}
    for name, value in os.environ.items():
        if not name.startswith("AWS_") and not name.lower().endswith("_proxy"):
            kept[name] = value
    return kept | {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": CREDENTIALS,
        "AWS_SECRET_ACCESS_KEY": CREDENTIALS,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def _way(
    command: Sequence[str],
    direction: str,
    files: Mapping[str, Path],
    environment: Mapping[str, str],
) -> Any:
    """Return a function that moves both files, and returns the difference of the seconds."""

    def seconds(name: str, work: Path) -> float:
        uri = f"s3://{BUCKET}/{name}"
        ends = (str(files[name]), uri) if direction == "upload" else (uri, str(work / name))
        started = time.monotonic()
        subprocess.run([*command, *ends], env=dict(environment), check=True)
        return time.monotonic() - started

    return lambda work: seconds("large", work) - seconds("small", work)


def _report(direction: str, seconds: Mapping[str, Sequence[float]]) -> None:
    low, ratio, high = quartiles(ratios(seconds["aws s3 cp"], seconds["recap"]))
    print(f"{direction} by recap: {ratio:.2f} of the rate of aws s3 cp, wanted {WANTED}")
    print(f"the middle half of the rounds from {low:.2f} to {high:.2f}")
    print(json.dumps({"benchmark": "transfers", "direction": direction, "seconds": seconds}))


if __name__ == "__main__":
    main()
