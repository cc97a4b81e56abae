"""Keep what a plan predicts of memory and time, so that its training's report can show it.

Only the same machine finds it, for the same rows, base, adapter, training and number of processes.
"""

import json
from pathlib import Path
from typing import Any

from job.config.commands import TrainConfig
from job.training.prepared import prepared_data

FILE = "predictions.json"
CPU = "cpu"

Identity = dict[str, Any] | None  # of rows
Predictions = dict[str, Any]


def store_predictions(
    config: TrainConfig, rows: Identity, processes: int, predictions: Predictions
) -> None:
    """Write predictions to the cache. Rows without an identity have none there."""
    if rows is None:
        return

    def write(folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(predictions), encoding="utf-8")

    with prepared_data() as prepared:
        prepared.store("predictions", _identity(config, rows, processes), write)


def find_predictions(config: TrainConfig, rows: Identity, processes: int) -> Predictions:
    """Return the predictions of a plan on this machine, which are none if it made none."""
    if rows is None:
        return {}
    with prepared_data() as prepared:
        folder = prepared.find("predictions", _identity(config, rows, processes))
        if folder is None:
            return {}
        return dict(json.loads((folder / FILE).read_text(encoding="utf-8")))


def _identity(config: TrainConfig, rows: dict[str, Any], processes: int) -> dict[str, Any]:
    training = config.training.model_dump(mode="json", exclude={"processes"})
    return {
        "rows": rows,
        "model": config.model.model_dump(mode="json"),
        "lora": config.lora.model_dump(mode="json"),
        "training": training,
        "processes": processes,
    }
