"""Manifests of simulated nights, written as `recap summarize` writes them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from job.config.watch_config import WatchConfig
from job.storage.folders import Manifest
from job.summarization.quality import FACT
from job.watch.nights import WatchedNight


def write_nights(folder: Path, real: Manifest, nights: list[WatchedNight]) -> Path:
    """Write a manifest for each night, as the real one with its own figures."""
    for night in nights:
        path = folder / f"dt={night.day}" / "manifest.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(manifest_of(real, night).to_json())
    return folder


def manifest_of(real: Manifest, night: WatchedNight, **facts: Any) -> Manifest:
    """Return the manifest of a simulated night, with other facts than the real one's."""
    block = {**real.extra[FACT], "measured_by": night.measured_by}
    block["figures"] = {name: asdict(one) for name, one in night.figures.items()}
    weights = {"adapter": night.serving, "base": "b"}
    identity = {**real.extra["identity"], "weights": weights}
    if night.languages:
        block["languages"] = night.languages
    counts = {**real.extra["counts"], "records": night.records}
    own = {FACT: block, "identity": identity, "counts": counts}
    return Manifest(real.files, {**real.extra, **own, **facts})


def config_of(folder: Path, **keys: Any) -> WatchConfig:
    """Return the config of a watch of the nights in this folder."""
    content = {"run": "watch", "nights": str(folder / "nights")}
    return WatchConfig.model_validate(content | keys)
