"""Build both images and push them to the stack's repository, as train-<tag> and summarize-<tag>.

`make push` runs it in the repository's root, with docker. Images that are there already are
neither built nor pushed: the repository accepts a tag once, and an interrupted push continues with
the rest.
"""

import argparse
import base64
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from deploy import DIRTY, TARGETS, RefusedError, find, images_there, outputs

ROOT = Path(__file__).parent.parent.parent

# The Dockerfile's build secrets, by the variables that name their files: infra/docker/README.md.
SECRETS = {"pip_ca": "PIP_CERT", "pip_conf": "PIP_CONFIG_FILE", "apt_sources": "APT_SOURCES"}

# docker has an argument of each name, in no layer. It does not take them from the shell by itself.
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


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
    """Build and push the missing images. Raise RefusedError without a stack or a commit."""
    if tag.endswith(DIRTY):
        raise RefusedError(
            f"{tag}: there are changes that no commit has, so nobody could build this image again: "
            "commit"
        )
    found = find(session.client("cloudformation"), stack)
    if not found:
        raise RefusedError(
            f"stack {stack} is not there, in this account and region: `make deploy` first"
        )
    repository = outputs(found)["Repository"]
    there = images_there(session.client("ecr"), repository, tag)
    missing = [target for target in TARGETS if target not in there]
    for target in there:
        print(f"{target}-{tag} is there already")
    if missing and not dry_run:
        log_in(session, repository.partition("/")[0])
    for command in commands(repository, tag, missing, os.environ):
        print(shlex.join(command))
        if not dry_run:
            subprocess.run(command, cwd=ROOT, check=True)
    named = {p["ParameterKey"]: p["ParameterValue"] for p in found["Parameters"]}["ImageTag"]
    if named != tag:
        print(f"the jobs of stack {stack} take the images of {named}: now `make deploy`")


def commands(
    repository: str, tag: str, targets: Sequence[str], environment: Mapping[str, str]
) -> Iterator[list[str]]:
    """Yield docker's commands, target by target. The machines are x86, whatever this one is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    values = {"VERSION": project["version"], "REVISION": tag, "CREATED": _commit_date()}
    values |= {"BASE_IMAGE": base} if (base := environment.get("BASE_IMAGE")) else {}
    arguments = [
        part for name, value in values.items() for part in ("--build-arg", f"{name}={value}")
    ]
    # Without a value: docker takes it from its own environment, and no command line shows it.
    for name in PROXIES:
        if environment.get(name):
            arguments += ["--build-arg", name]
    for id, variable in SECRETS.items():
        if path := environment.get(variable):
            arguments += ["--secret", f"id={id},src={Path(path).absolute()}"]
    for target in targets:
        image = f"{repository}:{target}-{tag}"
        build = ["docker", "build", "--platform", "linux/amd64"]
        yield [*build, "--target", target, "--tag", image, *arguments, "."]
        yield ["docker", "push", image]


def _commit_date() -> str:
    """Return the date of the commit, so that an image that is built again has the same labels.

    Its digest differs: Debian's packages and the times of files are those of the build.
    """
    command = ["git", "log", "-1", "--format=%cI"]
    return subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def log_in(session: boto3.session.Session, registry: str) -> None:
    """Log docker in to the registry."""
    token = session.client("ecr").get_authorization_token()["authorizationData"][0][
        "authorizationToken"
    ]
    user, password = base64.b64decode(token).decode().split(":", 1)
    command = ["docker", "login", "--username", user, "--password-stdin", registry]
    subprocess.run(command, input=password, text=True, check=True)


if __name__ == "__main__":
    main()
