"""Claims about TensorBoard's files, read back through a real TensorBoard."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from job.config.scoring_sections import ScoringSection
from job.conversations.record import Conversation, Source, Turn
from job.evaluation.bootstrap import Interval
from job.evaluation.evaluate import evaluate
from job.evaluation.result import NotScored
from job.evaluation.selection import CandidateScore, SelectionCurve
from job.evaluation.systems import Scored, System
from job.storage.local import LocalStore
from job.training.samples import SampleSummaries
from job.training.tensorboard import FINAL, FOLDER, open_events, publish_results, sync_tensorboard
from tests.html_text import HtmlText

# A library of TensorBoard.
pytestmark = pytest.mark.filterwarnings("ignore:html5lib")
HOSTILE = (
    "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">\n"
    "[click](javascript:alert(1)) ![p](http://evil.example/p.png) \x1b[2J\x1b]0;owned\x07\x00 "
    "\u202eowned |a|b|\n|---|---|\n```\n# head"
)
SERVING = {"quantization": "none", "engine": "transformers", "generation": {"temperature": 0.0}}
SELECTION = SelectionCurve(
    metric="rougeL",
    conversations=2,
    held_out=True,
    candidates=(
        CandidateScore(10, 0.5, 2.0, Interval(0.2, 0.1, 0.3, 2)),
        CandidateScore(20, 1.0, 1.5, Interval(0.4, 0.3, 0.5, 2)),
        CandidateScore(30, 1.5, 1.4, None),
    ),
    chosen=20,
)


def make_run(folder: Path, name: str, learning_rate: float) -> Any:
    """Return a run whose storage is a folder of its name."""
    work = folder / "work" / name
    work.mkdir(parents=True)
    fingerprint = {
        "model": {"base": "base", "quantization": "nf4-double", "revision": None},
        "lora": {"r": 8, "target_modules": ["q_proj", "v_proj"]},
        "training": {"learning_rate": learning_rate, "packing": False},
        "prompt": {"system": "Summarize. " * 40},
        "data_digests": {"train": "f" * 64},
        "versions": {"torch": "2"},
    }
    return SimpleNamespace(
        store=LocalStore(str(folder / "runs" / name)),
        work=work,
        config=SimpleNamespace(run=name),
        fingerprint=lambda: fingerprint,
        identity=lambda: {"fingerprint": name},
    )


def scored() -> Scored:
    conversations = [
        Conversation(f"c{n}", (Turn("customer", "My phone is dead"),), Source("x", n), ("A phone",))
        for n in range(2)
    ]
    systems = [
        System("tuned", "judged", ["A phone", "A dead phone"], serving=SERVING),
        System("base without adapter", "base", ["Hello", "Hello"]),
    ]
    return evaluate(systems, conversations, ScoringSection(bootstrap_samples=100), ["A parcel"])


def attempt(run: Any, first_step: int, losses: dict[int, float]) -> None:
    """Write the curve and the samples of an attempt that begins after a step."""
    conversation = Conversation(HOSTILE, (Turn(HOSTILE, HOSTILE),), Source("x", 1), (HOSTILE,))
    with open_events(run, first_step) as writer:
        for step, loss in losses.items():
            writer.add_scalar("train/loss", loss, step)
        samples = SampleSummaries(
            [conversation],
            lambda some: [HOSTILE] * len(some),
            writer.add_text,
            lambda: False,
            lambda error: False,
        )
        samples.on_evaluate(None, SimpleNamespace(global_step=max(losses)), None)
    sync_tensorboard(run)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of runs: one that was killed and resumed to its end twice, and others."""
    folder = tmp_path_factory.mktemp("tensorboard")
    resumed = make_run(folder, "resumed", learning_rate=0.1)
    best = {"step": 20, "eval_loss": 1.5}
    attempt(resumed, 0, {10: 3.0, 20: 2.0, 30: 99.0})
    publish_results(resumed, {"step": 20, "eval_loss": 9.9}, scored(), SELECTION)
    attempt(resumed, 20, {30: 1.0})
    publish_results(resumed, best, scored(), SELECTION)
    other = make_run(folder, "other", learning_rate=0.2)
    attempt(other, 0, {10: 3.0})
    publish_results(other, best, NotScored("no reference", "no reference"), None)
    return folder / "runs"


@pytest.fixture(scope="module")
def tensorboard(folder: Path) -> "Server":
    from tensorboard import default, program

    program_of_it = program.TensorBoard(default.get_plugins())
    words = f"--logdir={folder} --port=0 --load_fast=false --reload_interval=0"
    program_of_it.configure(argv=[None, *words.split()])
    server = Server(program_of_it.launch())
    # It reads the files in a thread of its own.
    while len(server.sessions()) < 2 or "other/tensorboard" not in server.ask("text/tags"):
        pass
    return server


class Server:
    """A running TensorBoard."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, route: str, post: Any = None, **query: str) -> Any:
        """Return the JSON that one of its plugins answers."""
        request = Request(f"{self._url}data/plugin/{route}?{urlencode(query)}")
        if post is not None:
            request.data = json.dumps(post).encode()
            request.add_header("Content-Type", "application/json")
        with urlopen(request) as answer:
            return json.loads(answer.read())

    def sessions(self) -> dict[str, Any]:
        """Return the rows of the tab HPARAMS, by name."""
        wanted = {"startIndex": 0, "sliceSize": 99, "allowedStatuses": ["STATUS_SUCCESS"]}
        found = self.ask("hparams/session_groups", post=wanted)
        return {group["name"]: group for group in found.get("sessionGroups", [])}

    def curve(self, run: str, tag: str) -> list[tuple[int, float]]:
        points = self.ask("scalars/scalars", run=f"{run}/{FOLDER}", tag=tag)
        return [(step, pytest.approx(value)) for _, step, value in points]

    def text(self, run: str, tag: str) -> str:
        (found,) = self.ask("text/text", run=f"{run}/{FOLDER}", tag=tag, markdown="true")
        return str(found["text"])


def test_attempts_and_results_of_a_resumed_run_are_one_run(tensorboard, folder):
    assert tensorboard.curve("resumed", "train/loss") == [(10, 3.0), (20, 2.0), (30, 1.0)]
    assert tensorboard.curve("resumed", "selection/rougeL") == [(10, 0.2), (20, 0.4)]
    assert len(tensorboard.curve("resumed", "scores/rougeL/tuned")) == 1
    assert len(tensorboard.curve("resumed", "scores/rougeL/base without adapter")) == 1
    assert len(list((folder / "resumed" / FOLDER / FINAL).iterdir())) == 1
    assert "step 20: of 2 candidates" in tensorboard.text("resumed", "selection/text_summary")
    assert "transformers" in tensorboard.text("resumed", "serving/text_summary")


def test_runs_compare_by_hyperparameters_and_final_metrics(tensorboard):
    sessions = tensorboard.sessions()
    names = {f"{run}/{FOLDER}/{FINAL}" for run in ("resumed", "other")}
    assert set(sessions) == names, "one row for a run, however many attempts it had"
    resumed = sessions[f"resumed/{FOLDER}/{FINAL}"]
    other = sessions[f"other/{FOLDER}/{FINAL}"]
    assert resumed["hparams"]["training.learning_rate"] == 0.1
    assert other["hparams"]["training.learning_rate"] == 0.2
    assert resumed["hparams"]["training.packing"] == "False"
    assert resumed["hparams"]["lora.target_modules"] == "q_proj, v_proj"
    assert resumed["hparams"]["serving.engine"] == "transformers"
    assert len(resumed["hparams"]["prompt.system"]) < 80
    assert resumed["hparams"]["data_digests.train"] == "f" * 8
    assert not any("versions" in key or "revision" in key for key in resumed["hparams"])

    metrics = {each["name"]["tag"]: each["value"] for each in resumed["metricValues"]}
    assert metrics["final/validation_loss"] == 1.5, "of the last attempt"
    assert 0 < metrics["final/rougeL"] <= 1
    assert [each["name"]["tag"] for each in other["metricValues"]] == ["final/validation_loss"]
    columns = tensorboard.ask("hparams/experiment", post={})
    found = {each["name"]["tag"] for each in columns["metricInfos"]}
    assert found == set(metrics), "no curve is a column"
    differing = [each["name"] for each in columns["hparamInfos"] if each.get("differs")]
    assert differing == ["training.learning_rate"]


def test_text_of_a_conversation_does_nothing_in_tensorboard(tensorboard):
    (tag,) = tensorboard.ask("text/tags")["other/tensorboard"]
    html = tensorboard.text("other", tag)
    page = HtmlText(html)
    own = {"table", "tbody", "tr", "td"}  # TensorBoard's own, around each text
    assert page.tags == {"p", "strong", "hr"} | own
    assert page.text.count("<script>document.title") == 4, "role, text, summary and reference"
    for character in "\x1b\x07\x00\u202e":
        assert character not in html + tag
