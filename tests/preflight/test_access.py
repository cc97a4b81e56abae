"""Claims about places that refuse: the plan and the run end alike, and the remedy is said once."""

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.endpoint
import pytest
import yaml

from job.config.load import load_config
from job.config.sections import StorageSection
from job.errors import ExitCode, OutputError, RecapError
from job.preflight.access import check_clock, probe_output, probe_pointer
from job.preflight.checks import Plan
from job.preflight.plan import plan
from job.storage.config_file import read_config
from tests.evaluation.conftest import make_conversations
from tests.storage.hub_server import Hub
from tests.storage.services import ConditionalS3, EmptyBucket, answering
from tests.summarization.conftest import write_lines

RECORDS = [
    {
        "id": each.id,
        "turns": [{"role": turn.role, "text": turn.text} for turn in each.turns],
        "summaries": each.references,
    }
    for each in make_conversations(12)
]
GIVEN = [{"id": each.id, "summary": each.references[0]} for each in make_conversations(12)]
NOT_S3 = "<html><body>Welcome</body></html>"
NO_KEY = "User: x is not authorized to perform: kms:{} on resource: arn:aws:kms:k"


@dataclass(frozen=True)
class Refusal:
    """The answer of a service to every request, the exit code, and words of the remedy."""

    status: int
    code: str
    ends: ExitCode
    remedy: str
    message: str = ""
    minutes: int = 0  # by which the service's clock is ahead of this machine's

    def __str__(self) -> str:
        return self.code

    def answer(self) -> Callable[[Any], None]:
        date = format_datetime(datetime.now(UTC) + timedelta(minutes=self.minutes), usegmt=True)
        headers = {"Date": date, "x_amz_bucket_region": "eu-west-1"}
        return answering(self.status, self.code, message=self.message, **headers)


REFUSALS = [
    Refusal(403, "AccessDenied", ExitCode.FORBIDDEN, "allow s3:GetObject and s3:ListBucket"),
    Refusal(
        403, "AccessDenied", ExitCode.FORBIDDEN, "on the bucket's KMS key", NO_KEY.format("Decrypt")
    ),
    Refusal(400, "KMS.DisabledException", ExitCode.FORBIDDEN, "enable it"),
    Refusal(404, "NoSuchBucket", ExitCode.MISSING, "there is no such bucket"),
    Refusal(301, "PermanentRedirect", ExitCode.CONFIG, "set storage.region to eu-west-1"),
    Refusal(400, "ExpiredToken", ExitCode.FORBIDDEN, "the credentials have expired"),
    Refusal(403, "InvalidAccessKeyId", ExitCode.FORBIDDEN, "does not know the access key"),
    Refusal(403, "SignatureDoesNotMatch", ExitCode.FORBIDDEN, "secret key does not fit"),
    Refusal(403, "RequestTimeTooSkewed", ExitCode.FORBIDDEN, "is 20 minutes behind", minutes=20),
    Refusal(503, "SlowDown", ExitCode.RETRY, "run again later"),
]
# Of a bucket that may be read.
REFUSALS_TO_WRITE = [
    Refusal(403, "AccessDenied", ExitCode.FORBIDDEN, "allow s3:PutObject, s3:DeleteObject"),
    Refusal(
        403,
        "AccessDenied",
        ExitCode.FORBIDDEN,
        "allow kms:Decrypt, and kms:GenerateDataKey",
        NO_KEY.format("GenerateDataKey"),
    ),
    Refusal(403, "QuotaExceeded", ExitCode.OUTPUT, "make room or raise the quota"),
]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch, aws_environment: Any, places: Path) -> None:
    """Let boto3 repeat its requests at once."""
    fake = SimpleNamespace(sleep=lambda seconds: None, time=time.time)
    monkeypatch.setattr(botocore.endpoint, "time", fake)


@pytest.fixture
def judging(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Make the config of an evaluation of given summaries, whose places are `here` unless named."""
    write_lines(tmp_path / "in.jsonl", RECORDS)
    write_lines(tmp_path / "given.jsonl", GIVEN)

    def make(endpoint: str, **keys: str) -> dict[str, Any]:
        content = {
            "run": "r",
            "input": f"{tmp_path}/in.jsonl",
            "summaries": f"{tmp_path}/given.jsonl",
            "output": f"{tmp_path}/out",
            "storage": {
                "endpoint_url": endpoint,
                "addressing_style": "path",
                "timeout_seconds": 5,
            },
        }
        return content | keys

    return make


@dataclass(frozen=True)
class Both:
    """The plan of a config, and the exit code of its run."""

    plan: Plan
    run: int

    def end_with(self, code: ExitCode) -> bool:
        """Return True if both end with the code."""
        planned = self.plan.error
        assert planned, "the plan found no error"
        return (planned.exit_code, self.run) == (code, code)


@pytest.fixture
def both(recap: Any, tmp_path: Path) -> Callable[[dict[str, Any]], Both]:
    def do(content: dict[str, Any]) -> Both:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(content))
        command = "evaluate" if "summaries" in content else "summarize"
        config = load_config(command, read_config(str(path)))
        return Both(plan(config), recap(command, path).code)

    return do


@pytest.mark.parametrize("refusal", REFUSALS, ids=str)
def test_s3_that_refuses_ends_plan_and_run_alike(serve, judging, both, refusal):
    content = judging(serve(refusal.answer()), input="s3://b/in.jsonl", output="s3://b/out")
    ended = both(content)
    assert ended.end_with(refusal.ends)
    found = ended.plan.findings()
    assert found.count(refusal.remedy) == 1, found
    assert "as above" in found


@pytest.mark.parametrize("refusal", REFUSALS_TO_WRITE, ids=str)
def test_an_output_that_refuses_ends_plan_and_run_alike(serve, judging, both, refusal):
    bucket = EmptyBucket(refusal.status, refusal.code, refusal.message)
    content = judging(serve(bucket.answer), output="s3://b/out")
    ended = both(content)
    assert ended.end_with(refusal.ends)
    assert refusal.remedy in ended.plan.findings()


def test_what_was_asked_as_a_person_is_not_ticked_for_the_job(s3, judging, both):
    content = judging(s3.endpoint, output=f"{s3.uri}/out")
    assert "– role        not checked: " in both(content).plan.findings()


def test_a_service_that_is_down_ends_plan_and_run_alike(judging, both):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and never listens
        content = judging(f"http://127.0.0.1:{bound.getsockname()[1]}", input="s3://b/in.jsonl")
        ended = both(content)
    assert ended.end_with(ExitCode.RETRY)
    assert "check storage.endpoint_url and the network" in ended.plan.findings()


def test_a_service_without_tls_ends_plan_and_run_alike(serve, judging, both):
    plain = serve(answering(200, ""))
    content = judging(plain.replace("http:", "https:"), input="s3://b/in.jsonl")
    ended = both(content)
    assert ended.end_with(ExitCode.RETRY)
    assert "AWS_CA_BUNDLE" in ended.plan.findings()


def test_without_credentials_plan_and_run_end_alike(serve, judging, both, aws_environment):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        aws_environment.delenv(name)
    content = judging(
        serve(answering(403, "AccessDenied")), input="s3://b/in.jsonl", output="s3://b/out"
    )
    ended = both(content)
    assert ended.end_with(ExitCode.FORBIDDEN)
    assert ended.plan.findings().count("give the job a role") == 1


HUB = {
    "gated": (ExitCode.FORBIDDEN, "is gated: ask for access on its page"),
    "gated, and no token": (ExitCode.FORBIDDEN, "set HF_TOKEN to a token that may read gated"),
    "not there": (ExitCode.MISSING, "there is no such repository, revision or file"),
    "no such revision": (ExitCode.MISSING, "there is no such repository, revision or file"),
    "too many requests": (ExitCode.RETRY, "answered 429, also after retries"),
    "out of order": (ExitCode.RETRY, "answered 503, also after retries"),
    "down": (ExitCode.RETRY, "check HF_ENDPOINT and the network"),
    "offline": (ExitCode.CONFIG, "HF_HUB_OFFLINE forbids asking the Hub"),
}


@pytest.fixture
def night(tmp_path: Path, base_folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the config of a night whose base is on a Hub that refuses in this way."""
    from huggingface_hub import constants

    write_lines(tmp_path / "in.jsonl", RECORDS)
    files = {path.name: path.read_bytes() for path in base_folder.iterdir() if path.is_file()}

    def make(way: str) -> dict[str, Any]:
        model: dict[str, Any] = {"base": "org/base"}
        if way != "not there":
            hub.add("org/base", files, gated=way.startswith("gated"))
        match way:
            case "gated, and no token":
                monkeypatch.delenv("HF_TOKEN")
            case "no such revision":
                model["revision"] = "v2"
            case "too many requests":
                hub.fail("/api/models", 429, times=50)
            case "out of order":
                hub.fail("/api/models", 503, times=50)
            case "down":
                monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
            case "offline":
                monkeypatch.setenv("HF_HUB_OFFLINE", "1")
                monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        output = f"{tmp_path}/out.jsonl"
        return {"run": "r", "input": f"{tmp_path}/in.jsonl", "output": output, "model": model}

    return make


@pytest.mark.parametrize("way", HUB)
def test_a_hub_that_refuses_ends_plan_and_run_alike(night, both, way):
    code, remedy = HUB[way]
    ended = both(night(way))
    assert ended.end_with(code), ended.plan.findings()
    assert ended.plan.findings().count(remedy) == 1


@pytest.mark.parametrize(
    ("honours", "said"),
    [("all", "conditional writes are honoured"), ("none", "ignores conditional writes")],
)
def test_an_output_is_tried_with_a_guarded_write(serve, honours, said):
    service = ConditionalS3(honours)
    storage = StorageSection(endpoint_url=serve(service.answer), addressing_style="path")
    assert said in probe_output("s3://b/out", storage)
    assert service.objects == {}


def test_a_service_without_conditional_writes_cannot_be_an_output(serve):
    service = ConditionalS3("501")
    storage = StorageSection(endpoint_url=serve(service.answer), addressing_style="path")
    with pytest.raises(OutputError, match="does not have what the request asks for"):
        probe_output("s3://b/out", storage)
    assert service.objects == {}


@pytest.mark.parametrize(("honours", "is_well"), [("all", True), ("bare", True), ("new", False)])
def test_a_pointer_is_kept_where_a_switch_is_guarded(serve, honours, is_well):
    service = ConditionalS3(honours)
    storage = StorageSection(endpoint_url=serve(service.answer), addressing_style="path")
    error = None
    try:
        probe_pointer("s3://b/champions/a.json", storage)
    except RecapError as found:
        error = found
    assert (error is None) is is_well
    assert error is None or error.exit_code == ExitCode.OUTPUT
    assert service.objects == {}


def test_a_pointer_on_the_hub_needs_a_token_that_may_write(hub):
    storage = StorageSection()
    assert probe_pointer("hf://org/adapters/champion.json", storage) is None
    hub.account["auth"] = {"accessToken": {"role": "read"}}
    with pytest.raises(RecapError, match=r"publish\.champion: org/adapters: .* may only read"):
        probe_pointer("hf://org/adapters/champion.json", storage)


@pytest.mark.parametrize(
    ("minutes", "is_known", "said"),
    [
        (0, True, "as that of the S3 service"),
        (0.5, True, "seconds behind"),
        (10, False, "warning: "),
    ],
)
def test_the_clock_is_compared_with_that_of_the_store(serve, minutes, is_known, said):
    date = format_datetime(datetime.now(UTC) + timedelta(minutes=minutes), usegmt=True)
    storage = StorageSection(
        endpoint_url=serve(answering(200, "", Date=date)), addressing_style="path"
    )
    found = check_clock("s3://b/out", storage)
    assert (found.is_known, said in found.text) == (is_known, True)
