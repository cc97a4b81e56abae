"""Publish a trained model: the adapter with its prompt, scores and card; the report; the logs.

Everything is written to local folders first, and then committed by manifest.
"""

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from job.config.load import resolved_yaml
from job.config.sections import as_list
from job.evaluation.card import CardFacts, Split, model_card
from job.evaluation.report import choose_examples, write_report
from job.evaluation.result import Evaluation
from job.evaluation.table import score_table
from job.launch.environment import versions
from job.model import BASE_KEY, save_adapter
from job.printable import printable
from job.prompt import write_prompt
from job.storage.folders import publish_folder
from job.storage.lease import GuardedStore
from job.storage.publish_hub import publish_to_hub
from job.telemetry import event, progress
from job.training.scoring import Scored
from job.training.state import Run


def publish(
    run: Run,
    trainer: Any,
    scored: Scored,
    weights: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Commit report, logs and adapter to storage, and push the adapter if configured.

    `weights` are the adapter's, given if the trainer's model is sharded. Prints the score table.
    Return the addresses of what was published, by kind.
    """
    adapter = run.work / "adapter"
    report = run.work / "report"

    model = trainer.accelerator.unwrap_model(trainer.model)
    save_adapter(model, run.tokenizer, run.base, adapter, weights)
    write_prompt(adapter, run.prompt)
    _write_json(adapter / "evaluation.json", _without_texts(scored.evaluation))
    (adapter / "README.md").write_text(_card(run, scored), encoding="utf-8")

    title = f"Training run {run.config.run}"
    examples = choose_examples(scored.conversations, scored.summaries)
    write_report(report, scored.evaluation, examples, trainer.state.log_history, title)
    _write_json(report / "evaluation.json", scored.evaluation.to_json())

    # The adapter last: whoever finds it finds its report and logs, too.
    publish_folder(report, run.store, "report", {})
    sync_tensorboard(run)
    facts = {
        BASE_KEY: run.base.identity(),
        "run": run.config.run,
        "fingerprint": run.identity()["fingerprint"],
    }
    with progress("publishing the adapter", _size(adapter), "B") as bar:
        publish_folder(adapter, run.store, "adapter", facts, bar.advance)
    published = {"adapter": f"{run.store.uri}/adapter"}
    event("adapter", uri=published["adapter"])

    if run.config.publish.hub:
        push(run, adapter, run.config.publish.hub)
        published["hub"] = run.config.publish.hub
    print(printable(score_table(scored.evaluation)), flush=True)
    return published


def push(run: Run, adapter: Path, repository: str) -> None:
    """Commit the adapter to a Hub repository while holding the run's lease.

    A process that loses the lease meanwhile is ended at once.
    """
    with run.store.change() if isinstance(run.store, GuardedStore) else nullcontext():
        url = publish_to_hub(
            adapter,
            repository,
            private=run.config.publish.private,
            message=f"recap run {run.config.run}",
        )
    event("pushed", url=url)


def sync_tensorboard(run: Run) -> None:
    """Copy the event files to storage.

    Each attempt has its own files; TensorBoard shows those of all attempts as one run.
    """
    for file in sorted((run.work / "tensorboard").glob("events.*")):
        run.store.upload(file, f"tensorboard/{file.name}")


def write_config(run: Run) -> None:
    """Write the resolved config, which has no secrets, to the run's folder."""
    run.store.write("config.yaml", resolved_yaml(run.config).encode())


def _card(run: Run, scored: Scored) -> str:
    data = run.config.data
    digests = run.examples.digests()
    counts = run.counts()
    uris = {
        "train": as_list(data.train),
        "validation": as_list(data.validation or data.train),
    }
    splits = []
    for name, uri in uris.items():
        splits.append(Split(name, uri, counts[name]["conversations"], digests[name]))
    facts = CardFacts(run.config, run.base.identity(), run.prompt, splits, versions())
    return model_card(facts, scored.evaluation)


def _size(folder: Path) -> int:
    """Return the bytes of all files below `folder`."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _without_texts(evaluation: Evaluation) -> dict[str, Any]:
    """Return the evaluation as JSON without any words of customers or annotators.

    An adapter may be copied to places where the data may not.
    """
    plain = evaluation.to_json() | {"floors_from": {}}
    for system in plain["systems"].values():
        system["most_common"] = ""
    return plain


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
