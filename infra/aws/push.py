"""Build both images for the stack's machines and push them to its repository, as train-<tag> and summarize-<tag>.

`make push` runs it, in the repository's root. Needs docker. A tag is never pushed twice: the repository refuses.
"""

import argparse
import base64
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from deploy import RefusedError, find, outputs

ROOT = Path(__file__).parent.parent.parent
TARGETS = ("train", "summarize")


def main() -> None:
    """Read the command line, build and push."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stack", default="recap")
    parser.add_argument("--tag", required=True, help="what the images are named after: the commit")
    parser.add_argument("--dry-run", action="store_true", help="only print the commands")
    given = parser.parse_args()
    try:
        push(boto3.session.Session(), given.stack, given.tag, given.dry_run)
    except (RefusedError, BotoCoreError, ClientError) as error:
        sys.exit(f"error: {error}")
    except FileNotFoundError as error:
        sys.exit(f"error: there is no {error.filename}: install it")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {shlex.join(error.cmd)} ended with {error.returncode}")


def push(session: boto3.session.Session, stack: str, tag: str, dry_run: bool) -> None:
    """Log docker in, build, push."""
    if tag.endswith("-dirty"):
        raise RefusedError(
            f"{tag}: there are changes that no commit has, so nobody could build this image again: commit"
        )
    found = find(session.client("cloudformation"), stack)
    if not found:
        raise RefusedError(f"stack {stack} is not there, in this account and region: `make deploy` first")
    repository = outputs(found)["Repository"]
    created = datetime.now(UTC).isoformat(timespec="seconds")
    if not dry_run:
        _log_in(session, repository.partition("/")[0])
    for command in commands(repository, tag, created):
        print(shlex.join(command))
        if not dry_run:
            subprocess.run(command, cwd=ROOT, check=True)


def commands(repository: str, tag: str, created: str) -> Iterator[list[str]]:
    """What docker is told. The machines are x86, whatever this one is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    labels = {"VERSION": project["version"], "REVISION": tag, "CREATED": created}
    arguments = [part for name, value in labels.items() for part in ("--build-arg", f"{name}={value}")]
    images = {target: f"{repository}:{target}-{tag}" for target in TARGETS}
    for target, image in images.items():
        yield ["docker", "build", "--platform", "linux/amd64", "--target", target, "--tag", image, *arguments, "."]
    for image in images.values():
        yield ["docker", "push", image]


def _log_in(session: boto3.session.Session, registry: str) -> None:
    token = session.client("ecr").get_authorization_token()["authorizationData"][0]["authorizationToken"]
    user, password = base64.b64decode(token).decode().split(":", 1)
    command = ["docker", "login", "--username", user, "--password-stdin", registry]
    subprocess.run(command, input=password, text=True, check=True)


if __name__ == "__main__":
    main()
