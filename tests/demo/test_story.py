"""Claims about the demo's story; a small program stands in for recap, which saves the training."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from job.config.commands import CONFIGS
from job.demo.closing import closing_screen
from job.demo.story import COMMANDS, example_folder, run_demo, s3_server
from job.errors import ExitCode, PreemptedError, RecapError

ROOT = Path(__file__).parents[2]
STAND_IN = '''
"""Does what the demo sees of recap: reads its config from S3 and leaves results there."""
import json, os, sys, time
import boto3

command, uri = sys.argv[1:]
s3 = boto3.client("s3")
key = uri.removeprefix("s3://recap-demo/")
config = s3.get_object(Bucket="recap-demo", Key=key)["Body"].read().decode()
print(command, "reads", config.strip(), flush=True)
put = lambda key, value: s3.put_object(Bucket="recap-demo", Key=key, Body=json.dumps(value) + "\\n")
if config.startswith("fail"):
    sys.exit(int(config.split()[1]))
if config.startswith("wait"):
    print("waiting in", os.getpid(), flush=True)
    time.sleep(600)
if command == "train":
    put("runs/demo/run.json", {"environment": dict(os.environ)})
    put("runs/demo/tensorboard/events", {})
if command == "evaluate":
    metrics = ("rouge1", "rouge2", "rougeL")
    systems = {}
    for name, score in {"lead": 0.25, "tuned": 0.75}.items():
        systems[name] = {"scores": {metric: {"mean": {"mean": score}} for metric in metrics}}
    put("evaluation/evaluation.json", {"conversations": 2, "judged": "tuned", "systems": systems})
if command == "summarize":
    line = {"id": "c1", "summary": "The parcel is late; the agent sends another."}
    put("summaries/parts/00000.jsonl", line)
'''


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    folder = tmp_path / "examples"
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
def program(tmp_path: Path) -> list[str]:
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    return [sys.executable, str(script)]


def test_story_ends_with_scores_and_summaries_and_where_they_are(
    examples: Path, program: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_demo(tmp_path / "demo", examples, program)
    screen = capfd.readouterr().out
    assert screen.index("> tuned") < screen.index("  lead")
    for piece in (
        "0.750",
        "customer: My parcel is late.",
        "The parcel is late; the agent",
        "A late parcel is sent",
    ):
        assert piece in screen
    assert "tensorboard --logdir" in screen
    assert (tmp_path / "demo" / "bucket" / "base" / "config.json").read_text() == "{}"


def test_each_command_reads_its_config_from_s3_and_is_logged(
    examples: Path, program: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_demo(tmp_path / "demo", examples, program)
    screen = capfd.readouterr().out
    for command in COMMANDS:
        assert f"$ recap {command} s3://recap-demo/configs/{command}.yaml" in screen
        said = f"{command} reads the config of {command}"
        assert said in screen
        assert said in (tmp_path / "demo" / "logs" / f"{command}.log").read_text()


def test_story_again_replaces_what_the_last_one_left_and_nothing_else(
    examples: Path, program: list[str], tmp_path: Path
) -> None:
    work = tmp_path / "demo"
    run_demo(work, examples, program)
    (work / "bucket" / "stale").write_text("from the last demo")
    (work / "mine.txt").write_text("not the demo's")
    run_demo(work, examples, program)
    assert not (work / "bucket" / "stale").exists()
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


def test_last_screen_fits_a_narrow_terminal(
    examples: Path, program: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_demo(tmp_path / "demo", examples, program)
    monkeypatch.setenv("COLUMNS", "64")
    screen = closing_screen(tmp_path / "demo", examples, {"train": 1.0})
    above_places = screen.split("Where it all is")[0].splitlines()
    assert max(map(len, above_places)) <= 64


@pytest.mark.parametrize("command", COMMANDS)
def test_shipped_configs_are_valid(command: str) -> None:
    text = (example_folder() / f"{command}.yaml").read_text(encoding="utf-8")
    config = CONFIGS[command].model_validate(yaml.safe_load(text))  # type: ignore[index]
    assert config.run.startswith("demo")
