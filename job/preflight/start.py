"""Check the adapter that a training starts from, as the training will, before it is paid for."""

from dataclasses import dataclass
from pathlib import Path

from job.config.commands import TrainConfig
from job.model.adapter_files import check_adapter_files
from job.model.fetch import check_small_files, fetch_base_of
from job.model.files import hub_id_of
from job.preflight.access import SmallFiles
from job.preflight.checks import Check, Found, check_value
from job.preflight.models import describe_champion
from job.preflight.standing import run_store
from job.prompt.template import Prompt
from job.storage.folders import verify_folder
from job.storage.keys import local_path, scheme_of
from job.training.journal import read_journal
from job.training.start import (
    KEY,
    Start,
    StartPin,
    check_all_linear,
    open_start,
    pin_start,
    take_from_start,
)


@dataclass(frozen=True)
class Started:
    """The config of a run with what it takes from the adapter that it starts from, if any."""

    config: TrainConfig
    start: Start | None = None

    @property
    def pin(self) -> StartPin | None:
        """The record of the adapter."""
        return self.start.pin if self.start else None

    @property
    def prompt(self) -> Prompt | None:
        """The prompt of the adapter."""
        return self.start.prompt if self.start else None


def start_check(
    config: TrainConfig, run: str, small: SmallFiles, brief: bool
) -> tuple[list[Check], Started | None]:
    """Return the check of the adapter that `run` starts from, none if it trains a new one.

    Return the config with what it takes, too; None if the training would end. If `brief`, the
    training itself compares the base.
    """
    if config.training.start_from is None:
        return [], Started(config)

    def describe() -> Found[Started]:
        pin = pin_start(config, read_journal(run_store(config, run)))
        assert pin is not None
        start = open_start(config, pin)
        taken = take_from_start(config, start)
        if not brief:
            _check_base(config, start, small)
            # The code of a base is run by the training alone.
            if not config.model.trust_remote_code:
                check_all_linear(taken, start, small.folder)
        lines = [pin.sentence()]
        if start.adapter.pointer is not None:
            lines = [describe_champion(start.adapter.pointer)]
        lora = start.lora
        lines.append(
            f"of run {start.adapter.manifest.extra.get('run')}; taken from it: prompt, cleaning "
            f"and {lora.variant} of rank {lora.r}, alpha {lora.alpha}"
        )
        return Found("\n".join(lines), Started(taken, start))

    check, started = check_value("start", describe, KEY)
    return [check], started


def _check_base(config: TrainConfig, start: Start, small: SmallFiles) -> None:
    """Raise ConfigError unless model.base is the base of the adapter, DamagedError if it is broken.

    Reads all bytes of what is on this machine.
    """
    model = config.model
    uri = start.pin.adapter
    if scheme_of(uri) == "file" and Path(local_path(uri)).is_dir():
        verify_folder(Path(local_path(uri)))
        check_adapter_files(Path(local_path(uri)), uri, not config.writes_summaries)
    if hub_id_of(model.base, model.revision) is None and Path(model.base).is_dir():
        fetch_base_of(start.adapter, model, config.storage, Path(model.base))
    else:  # reading all weights is cheap only in a folder of this machine
        check_small_files(start.adapter, model, small.folder)
