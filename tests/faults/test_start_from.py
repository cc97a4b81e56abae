"""A run that starts from the champion and is stopped or killed ends as one that never was."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from job.errors import ExitCode
from job.model.fetch import read_adapter
from job.model.libraries import import_bitsandbytes
from job.storage.folders import publish_folder, read_manifest, verify_folder
from job.storage.local import LocalStore
from tests.adapters import publish_adapter
from tests.champions import promote
from tests.faults.real import RealRun
from tests.faults.trials import STEP, Trials, adapter_digest, journal_of, store_of
from tests.training.conftest import records, write_jsonl

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]


@pytest.fixture
def pointer(tmp_path: Path, base_folder: Path) -> str:
    """A champion of random weights."""
    import_bitsandbytes()  # else peft does, with a warning of a library
    work = tmp_path / "first"
    work.mkdir()
    publish_adapter(base_folder, work, str(tmp_path / "champion"))
    promote(str(tmp_path / "champion.json"), str(tmp_path / "champion"))
    return str(tmp_path / "champion.json")


@pytest.fixture
def further(small: dict[str, Any], pointer: str, tmp_path: Path) -> dict[str, Any]:
    """A run that starts from the champion, with replay."""
    replay = write_jsonl(tmp_path / "replay.jsonl", records(8, first=300))
    data = small["data"] | {"replay": str(replay), "replay_share": 0.4}
    training = small["training"] | {"start_from": pointer, "epochs": 4, "log_every_steps": 1}
    config = small | {"data": data, "training": training}
    del config["lora"]
    return config


def crown_another(pointer: str, tmp_path: Path) -> str:
    """Make another adapter the champion, and return its digest."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    other = shutil.copytree(tmp_path / "champion", tmp_path / "usurper")
    (other / "manifest.json").unlink()
    weights = load_file(other / "adapter_model.safetensors")
    halved = {name: np.ascontiguousarray(weight / 2) for name, weight in weights.items()}
    save_file(halved, other / "adapter_model.safetensors")
    facts = read_manifest(LocalStore(str(tmp_path / "champion")), "").extra
    publish_folder(other, LocalStore(str(tmp_path / "other")), "", facts)
    promote(pointer, str(tmp_path / "other"))
    return read_adapter(str(tmp_path / "other"), None).digest  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_resumes_to_the_same_bytes_though_the_champion_moved(
    trials: Trials, further: dict[str, Any], pointer: str, tmp_path: Path, number: signal.Signals
) -> None:
    whole = further | {"run": "whole"}
    assert trials.run(whole)[0] == ExitCode.DONE

    child = trials.start_until(
        further, lambda log: any(int(step) >= 3 for step in STEP.findall(log))
    )
    child.send(number)
    assert child.wait() in (ExitCode.RETRY, -number), child.log()
    moved = crown_another(pointer, tmp_path)
    code, log = trials.run(further)
    assert code == ExitCode.DONE, log
    assert len(journal_of(store_of(further))["attempts"]) == 2
    assert adapter_digest(store_of(further)) == adapter_digest(store_of(whole))

    began = journal_of(store_of(further))["facts"]["start"]
    assert (began["named"], began["version"], began["digest"] == moved) == (pointer, 1, False)
    later = further | {"run": "later"}
    assert trials.run(later)[0] == ExitCode.DONE
    assert journal_of(store_of(later))["facts"]["start"]["digest"] == moved
    assert adapter_digest(store_of(later)) != adapter_digest(store_of(whole)), "weights matter"
    assert trials.run(further)[0] == ExitCode.DONE, "finished is finished"
    assert len(journal_of(store_of(further))["attempts"]) == 2


def test_two_processes_resume_to_the_same_bytes(further: dict[str, Any], tmp_path: Path) -> None:
    further["training"] |= {"processes": 2, "batch_size": 2}
    whole = further | {"run": "whole"}
    RealRun(whole, tmp_path).finish()

    run = RealRun(further, tmp_path)
    assert run.interrupt(3, signal.SIGTERM) == ExitCode.RETRY, run.log
    run.finish()
    assert len(journal_of(store_of(further))["attempts"]) == 2
    assert adapter_digest(store_of(further)) == adapter_digest(store_of(whole))


def test_two_processes_begin_at_it_and_publish_merged_weights(
    further: dict[str, Any], pointer: str, base_folder: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    slow = {"processes": 2, "epochs": 1, "learning_rate": 1e-12}  # it stays where it begins
    further["training"] |= slow
    RealRun(further | {"publish": {"merged": True}}, tmp_path).finish()
    run = Path(store_of(further).uri)
    began = load_file(tmp_path / "champion" / "adapter_model.safetensors")
    ended = load_file(run / "adapter" / "adapter_model.safetensors")
    assert began.keys() == ended.keys()
    assert max(float((ended[name] - began[name]).abs().max()) for name in began) < 1e-9

    name = "model.layers.0.self_attn.q_proj"
    down, up = (began[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    weight = load_file(base_folder / "model.safetensors")[f"{name}.weight"].float()
    merged = load_file(run / "merged" / "model.safetensors")[f"{name}.weight"].float()
    learned = 8 / 2 * (up.float() @ down.float())  # alpha and rank of the champion
    assert float(learned.abs().max()) > 0.01
    assert float((merged - weight - learned).abs().max()) < 0.01, "bfloat16 rounds"

    champion = read_adapter(pointer, None)  # type: ignore[arg-type]
    recorded = verify_folder(run / "merged").extra["merged"]["adapter"]
    assert recorded == read_adapter(str(run / "adapter"), None).digest  # type: ignore[arg-type]
    named = f"started from the adapter of run {champion.manifest.extra['run']}"
    for card in (run / "adapter" / "README.md", run / "merged" / "README.md"):
        text = " ".join(card.read_text(encoding="utf-8").split())
        assert named in text
        assert champion.digest in text
    report = next((run / "report").glob("*.html")).read_text(encoding="utf-8")
    assert "Started from" in report
    assert champion.digest[:12] in report
