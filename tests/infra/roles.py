"""The roles of jobs: which request each allows, and recap running under them on a real store."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from job.cli import run
from tests.faults.s3_proxy import Fault, Request
from tests.faults.trials import QUIET

BUCKET = "arn:aws:s3:::recap-bucket"
POINTER = "champions/support.json"  # key of the champion
TOPICS = ["phone", "parcel", "refund", "flight"]


def action_of(request: Request) -> tuple[str, str]:
    """Return the IAM action of a request to S3, and its resource.

    A listing's resource is the bucket with the prefix behind a question mark.
    """
    url = urlsplit(request.path)
    key, query = (
        unquote(url.path).lstrip("/").partition("/")[2],
        parse_qs(url.query, keep_blank_values=True),
    )
    if not key:
        return "s3:ListBucket", f"{BUCKET}?{query.get('prefix', [''])[0]}"
    match request.method:
        case "GET" | "HEAD":
            action = "s3:GetObject"
        case "DELETE":
            action = "s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject"
        case _:
            action = "s3:PutObject"
    return action, f"{BUCKET}/{key}"


@dataclass
class Role:
    """A role: the statements of its policies, the rights that were used, and refused requests."""

    statements: list[dict[str, Any]]
    used: set[tuple[str, str]] = field(default_factory=set)
    refused: list[tuple[str, str]] = field(default_factory=list)

    def plan(self, request: Request) -> Fault | None:
        """Refuse as S3 does: what is not allowed is forbidden."""
        for asked in self._asked(*action_of(request)):
            rights = [right for right in self.rights() if all(map(fnmatchcase, asked, right))]
            self.used.update(rights)
            if not rights:
                self.refused.append(asked)
                return Fault("status", status=403)
        return None

    def _asked(self, action: str, resource: str) -> list[tuple[str, str]]:
        asked = [(action, resource)]
        if action == "s3:GetObject":
            # S3 reports a missing key only to those who may list it, with the key as the prefix.
            # For others it is forbidden, which ends recap. So each key must be listable.
            asked.append(("s3:ListBucket", f"{BUCKET}?{resource.removeprefix(BUCKET + '/')}"))
        return asked

    def rights(self) -> set[tuple[str, str]]:
        """Return each action with each resource that it is allowed on, as patterns.

        A listing may be limited to prefixes, by a condition. No other condition is known.
        """
        found = set()
        for statement in self.statements:
            condition = statement.get("Condition", {"StringLike": {"s3:prefix": ["*"]}})
            prefixes = condition["StringLike"]["s3:prefix"]
            for action in statement["Action"]:
                for where in statement["Resource"]:
                    if action == "s3:ListBucket":
                        found |= {(action, f"{where}?{prefix}") for prefix in prefixes}
                    else:
                        found.add((action, where))
        return found

    def allows(self, action: str, resource: str) -> bool:
        """Return True if some right covers the action on this resource."""
        return any(all(map(fnmatchcase, (action, resource), right)) for right in self.rights())


def recap(
    command: str, config: str, stop_at: str | None = None, arguments: Sequence[str] = ()
) -> tuple[int, str]:
    """Run recap; with `stop_at`, until it says so, and then stop it as a reclaimed machine does."""
    line = [sys.executable, "-m", "job", command, config, *arguments]
    said = []
    with subprocess.Popen(
        line,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | QUIET,
    ) as process:
        for text in process.stderr or ():
            said.append(text)
            if stop_at and stop_at in text:
                process.send_signal(signal.SIGTERM)
                stop_at = None
    return process.returncode, "".join(said)


def evaluate_twice(s3: Any) -> list[int]:
    """Evaluate given summaries in this process, first with a gate; return the exit codes."""
    uri = s3.uri
    lines = [json.loads(line) for line in conversations(100, 6).splitlines()]
    given = [{"id": each["id"], "summary": each["summaries"][0]} for each in lines]
    config = {
        "run": "judged",
        "input": f"{uri}/data/validation.jsonl",
        "summaries": f"{uri}/data/given.jsonl",
        "output": f"{uri}/runs/evaluations/judged",
        "evaluation": {"bootstrap_samples": 100},
    }
    files = {
        "data/given.jsonl": "".join(json.dumps(each) + "\n" for each in given),
        "configs/evaluate.yaml": yaml.safe_dump(config),
        "configs/gate.yaml": yaml.safe_dump(config | {"publish": {"gate": {}}}),
    }
    for key, content in files.items():
        s3.client().put_object(Bucket=s3.bucket, Key=key, Body=content.encode())
    return [run(["evaluate", f"{uri}/configs/{name}.yaml"]) for name in ("gate", "evaluate")]


def conversations(first: int, count: int) -> bytes:
    lines = []
    for n in range(first, first + count):
        turns = [
            {
                "role": "customer",
                "text": f"My {TOPICS[n % 4]} number {n} does not work since day {n * 7 % 31}.",
            },
            {
                "role": "agent",
                "text": f"Sorry! Please restart the {TOPICS[n % 4]} and tell me code {n * 13}.",
            },
        ]
        lines.append(
            {
                "id": f"c{n}",
                "turns": turns,
                "summaries": [f"{TOPICS[n % 4]} {n} fixed by a restart."],
            }
        )
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def promote(s3: Any) -> tuple[int, str]:
    """Make the trained adapter the champion; return the exit code and what was said."""
    words = (f"{s3.uri}/{POINTER}", f"{s3.uri}/runs/tiny/adapter")
    return recap("champion", "set", arguments=words)


def fill(s3: Any, base: Path) -> dict[str, Any]:
    """Lay the stack's bucket out as its README says; return the config of the training."""
    uri = s3.uri
    train = {
        "run": "tiny",
        "model": {"base": f"{uri}/models/tiny"},
        "data": {"train": f"{uri}/data/train.jsonl", "validation": f"{uri}/data/validation.jsonl"},
        "output": f"{uri}/runs",
        "lora": {"r": 4},
        "training": {
            "epochs": 4,
            "batch_size": 4,
            "gradient_accumulation_steps": 1,
            "max_tokens": 512,
        }
        | {"save_every_steps": 4, "keep_last": 1, "log_every_steps": 1, "sample_summaries": 0}
        | {"evaluate_every_steps": 4, "adapter_from": "best_metric"}
        | {"selection": {"conversations": 2, "candidates": 2}},
        "generation": {"max_new_tokens": 8},
        "evaluation": {"max_conversations": 2, "bootstrap_samples": 100},
    }
    night = {
        "run": "nightly",
        "input": f"{uri}/conversations/dt=2026-01-31/",
        "adapter": f"{uri}/{POINTER}",
        "output": f"{uri}/summaries/dt=2026-01-31/",
        "generation": {"max_new_tokens": 8},
        "limits": {"max_reject_fraction": 1},
    }
    files = {
        "configs/train.yaml": yaml.safe_dump(train).encode(),
        "configs/nightly.yaml": yaml.safe_dump(night).encode(),
        "data/train.jsonl": conversations(0, 24),
        "data/validation.jsonl": conversations(100, 6),
        "conversations/dt=2026-01-31/a.jsonl": conversations(200, 5),
    }
    files |= {f"models/tiny/{path.name}": path.read_bytes() for path in base.iterdir()}
    for key, content in files.items():
        s3.client().put_object(Bucket=s3.bucket, Key=key, Body=content)
    return train
