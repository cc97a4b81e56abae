"""Push an image that is another one of the stack with another entry point.

A job of Batch cannot name another entry point than its image has.
"""

import json
import shlex
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from push import log_in


def push_with_entry_point(
    session: Any,
    values: dict[str, str],
    target: str,
    name: str,
    words: Sequence[str],
    dry_run: bool,
) -> str:
    """Push the image `name`-TAG, made of `target`-TAG, unless it is there; return its URI.

    `values` are the outputs of the stack, and `words` the entry point. A dry run prints the
    commands alone. Raise CalledProcessError if docker fails.
    """
    repository, tag = values["Repository"], values["ImageTag"]
    image = f"{repository}:{name}-{tag}"
    if _is_there(session.client("ecr"), repository, f"{name}-{tag}"):
        print(f"{name}-{tag} is there already")
        return image
    dockerfile = f"FROM {repository}:{target}-{tag}\nENTRYPOINT {json.dumps(list(words))}\n"
    build = ["docker", "build", "--platform", "linux/amd64", "--tag", image, "-"]
    if not dry_run:
        log_in(session, repository.partition("/")[0])
    for command, given in ((build, dockerfile), (["docker", "push", image], "")):
        print(shlex.join(command))
        if not dry_run:
            subprocess.run(command, input=given, text=True, check=True)
    return image


def _is_there(ecr: Any, repository: str, tag: str) -> bool:
    """Return True if the repository at this URI has an image of this tag."""
    with suppress(ecr.exceptions.ImageNotFoundException):
        name = repository.partition("/")[2]
        ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": tag}])
        return True
    return False
