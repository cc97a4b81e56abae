"""Claims about the demo's story; a small program stands in for recap, which saves the training."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from job.config.commands import CONFIGS
from job.demo.closing import closing_screen
from job.demo.story import STEPS, example_folder, run_demo, s3_server
from job.errors import ExitCode, PreemptedError, RecapError

ROOT = Path(__file__).parents[2]
COMMANDS = ("train", "evaluate", "summarize")
# Without boto3, which takes most of a second to import in each of dozens of processes.
STAND_IN = '''
"""Does what the demo sees of recap: reads its config from S3 and leaves results there."""
import json, os, sys, time
from urllib.request import Request, urlopen

command, uri, *overrides = sys.argv[1:]
bucket = os.environ["AWS_ENDPOINT_URL"] + "/recap-demo/"
scope = "demo/20260101/us-east-1/s3/aws4_request"
headers = {
    # The server wants a signature, and any will do.
    "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=, Signature=0",
    "Content-Type": "application/json",
}

def request(key, value=None):
    data = None if value is None else (json.dumps(value) + "\\n").encode()
    method = "GET" if data is None else "PUT"
    with urlopen(Request(bucket + key, data=data, method=method, headers=headers)) as answer:
        return answer.read().decode()

if command == "champion":
    print("the champion of", overrides[0])
    sys.exit()
config = request(uri.removeprefix("s3://recap-demo/"))
print(command, "reads", config.strip(), *overrides, flush=True)

if config.startswith("fail"):
    sys.exit(int(config.split()[1]))
if config.startswith("wait"):
    print("waiting in", os.getpid(), flush=True)
    time.sleep(600)
if command == "train" and overrides:
    sys.exit(76 if config.startswith("the config") else 0)
if command == "train":
    request("runs/demo/run.json", {"environment": dict(os.environ)})
    request("runs/demo/tensorboard/events", {})
if command == "evaluate":
    metrics = ("rouge1", "rouge2", "rougeL")
    systems = {}
    for name, score in {"lead": 0.25, "tuned": 0.75}.items():
        systems[name] = {"scores": {metric: {"mean": {"mean": score}} for metric in metrics}}
    evaluation = {"conversations": 2, "judged": "tuned", "systems": systems}
    request("evaluation/evaluation.json", evaluation)
if command == "summarize":
    line = {"id": "c1", "summary": "The parcel is late; the agent sends another."}
    request("summaries/parts/00000.jsonl", line)
'''


@dataclass(frozen=True)
class Story:
    """A story that has ended: its folder, what it uploaded, and what it printed."""

    work: Path
    examples: Path
    screen: str


def make_examples(folder: Path) -> Path:
    (folder / "base").mkdir(parents=True)
    (folder / "base" / "config.json").write_text("{}")
    for command in COMMANDS:
        (folder / f"{command}.yaml").write_text(f"the config of {command}")
    turns = [
        {"role": "customer", "text": "My parcel is late."},
        {"role": "agent", "text": "We send another."},
    ]
    record = {"id": "c1", "turns": turns, "summaries": ["A late parcel is sent again."]}
    (folder / "conversations.jsonl").write_text(json.dumps(record) + "\n")
    return folder


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    return make_examples(tmp_path / "examples")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    script = tmp_path_factory.mktemp("program") / "stand_in.py"
    script.write_text(STAND_IN)
    return [sys.executable, str(script)]


@pytest.fixture(scope="module")
def story(program: list[str], tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("story")
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(printed):
        run_demo(folder / "demo", make_examples(folder / "examples"), program)
    screen = printed.buffer.getvalue().decode()  # type: ignore[attr-defined]
    return Story(folder / "demo", folder / "examples", screen)


def test_story_ends_with_scores_and_summaries_and_where_they_are(story: Story) -> None:
    assert story.screen.index("> tuned") < story.screen.index("  lead")
    for piece in (
        "0.750",
        "customer: My parcel is late.",
        "The parcel is late; the agent",
        "A late parcel is sent",
    ):
        assert piece in story.screen
    assert "tensorboard --logdir" in story.screen
    assert (story.work / "bucket" / "base" / "config.json").read_text() == "{}"


def test_each_command_reads_its_config_from_s3_and_is_logged(story: Story) -> None:
    for step in STEPS:
        assert f"$ recap {' '.join(step.arguments)}" in story.screen
    for command in COMMANDS:
        line = f"{command} reads the config of {command}"
        assert line in story.screen
        assert line in (story.work / "logs" / f"{command}.log").read_text()


def test_story_again_replaces_what_the_last_one_left_and_nothing_else(
    story: Story, program: list[str], tmp_path: Path
) -> None:
    work = tmp_path / "demo"
    shutil.copytree(story.work, work)
    (work / "bucket" / "stale").write_text("from the last demo")
    (work / "mine.txt").write_text("not the demo's")
    run_demo(work, story.examples, program)
    assert not (work / "bucket" / "stale").exists()
    assert (work / "bucket" / "evaluation" / "evaluation.json").exists()
    assert (work / "mine.txt").exists()


def test_commands_see_no_account_or_proxy_of_this_machine(
    examples: Path, program: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = {
        "AWS_SESSION_TOKEN": "s",
        "HF_TOKEN": "h",
        "AWS_PROFILE": "none",
        "https_proxy": "p",
        "RECAP_CACHE": "c",
    }
    for name, value in private.items():
        monkeypatch.setenv(name, value)
    run_demo(tmp_path / "demo", examples, program)
    seen = json.loads((tmp_path / "demo" / "bucket" / "runs" / "demo" / "run.json").read_text())[
        "environment"
    ]
    assert not {"AWS_SESSION_TOKEN", "HF_TOKEN", "AWS_PROFILE", "https_proxy"} & seen.keys()
    assert seen["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
    assert seen["RECAP_CACHE"] != "c"


@pytest.mark.parametrize(
    ("code", "meaning"), [(65, ExitCode.DATA), (75, ExitCode.RETRY), (1, ExitCode.BUG)]
)
def test_a_failing_command_ends_the_story_with_its_exit_code(
    examples: Path, program: list[str], tmp_path: Path, code: int, meaning: ExitCode
) -> None:
    (examples / "evaluate.yaml").write_text(f"fail {code}")
    with pytest.raises(
        RecapError, match=rf"recap evaluate.*exit code {code}.*evaluate\.log"
    ) as raised:
        run_demo(tmp_path / "demo", examples, program)
    assert raised.value.exit_code == meaning
    assert (tmp_path / "demo" / "bucket" / "runs" / "demo" / "run.json").exists()
    assert not (tmp_path / "demo" / "bucket" / "summaries").exists()


def test_a_challenger_that_passes_ends_the_story(
    examples: Path, program: list[str], tmp_path: Path
) -> None:
    (examples / "train.yaml").write_text("no gate")
    with pytest.raises(RecapError, match=r"demo-short.*exit code 0, not with 76") as raised:
        run_demo(tmp_path / "demo", examples, program)
    assert raised.value.exit_code == ExitCode.BUG


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_signal_ends_the_running_command_and_the_story(
    examples: Path, program: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    (examples / "train.yaml").write_text("wait")
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from job.demo.story import run_demo\nfrom job.errors import RecapError\n"
        f"try: run_demo(Path('demo'), Path({str(examples)!r}), {program!r})\n"
        "except RecapError as error: sys.exit(f'{type(error).__name__} {error}')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as story:
        assert story.stdout is not None
        line = next(line for line in story.stdout if line.startswith("waiting in"))
        story.send_signal(number)
        _, said = story.communicate()
    assert PreemptedError.__name__ in said
    assert "recap train" in said
    with pytest.raises(ProcessLookupError):
        os.kill(int(line.split()[-1]), 0)


def test_server_is_empty_at_each_start_and_gone_after_the_block() -> None:
    with s3_server() as endpoint, urllib.request.urlopen(f"{endpoint}/") as answer:
        assert b"<Bucket>" not in answer.read()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{endpoint}/")


def test_last_screen_fits_a_narrow_terminal(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "64")
    screen = closing_screen(story.work, story.examples, {"train": 1.0})
    above_places = screen.split("Where it all is")[0].splitlines()
    assert max(map(len, above_places)) <= 64


@pytest.mark.parametrize("command", COMMANDS)
def test_shipped_configs_are_valid(command: str) -> None:
    text = (example_folder() / f"{command}.yaml").read_text(encoding="utf-8")
    config = CONFIGS[command].model_validate(yaml.safe_load(text))  # type: ignore[index]
    assert config.run.startswith("demo")
