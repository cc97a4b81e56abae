"""The files that the images are built from."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra" / "docker"


def lock(name: str) -> dict[str, str]:
    """Return the versions of one lock by package."""
    versions = {}
    for line in (INFRA / "locks" / f"{name}.txt").read_text().splitlines():
        if not line.startswith("#"):
            package, version = line.split(" ")[0].split("==")
            versions[package] = version
    return versions
