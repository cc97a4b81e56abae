"""Log-probabilities under the reference model of a preference training, computed once per run.

The reference is the model as the training finds it: the base with the adapter that it starts from,
or with a new one, which changes nothing. So they are computed before the first step, by the model
that is in memory, and checkpoints carry them: a second adapter, or a second base, is never needed.
"""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

FILE = "reference.safetensors"
KEY = "log_probabilities"


class KeepReference(TrainerCallback):  # type: ignore[misc]
    """Store the reference's log-probabilities in each checkpoint, and take them from there.

    A resumed run has other weights in memory: it cannot compute them again. Must be called before
    PublishCheckpoints at a save.
    """

    def __init__(self, trainer: Any, resumed_from: Path | None) -> None:
        self._trainer = trainer
        self._resumed_from = resumed_from

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._resumed_from:
            self._trainer.reference = load_file(self._resumed_from / FILE)[KEY]

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            save_file({KEY: self._trainer.reference}, folder / FILE)
