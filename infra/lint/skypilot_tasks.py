"""Read SkyPilot's tasks with SkyPilot itself: it refuses unknown keys, values and exit codes.

`make check-infra` runs it in SkyPilot's own environment. No cloud is asked.

usage: skypilot_tasks.py FILE…
"""

import os
import sys
from pathlib import Path

os.environ["SKYPILOT_DISABLE_USAGE_COLLECTION"] = "1"

import sky
import yaml

# What a person names on the command line.
GIVEN = {
    "envs": {"DATE": "2026-01-31"},
    "secrets": {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
}


def main() -> None:
    """Read each file, and fail at the first that SkyPilot refuses."""
    for path in sys.argv[1:]:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        for section, values in GIVEN.items():
            config[section] |= {key: values[key] for key in values.keys() & config[section].keys()}
        task = sky.Task.from_yaml_config(config)
        choices = sorted(str(choice.accelerators) for choice in task.resources)
        print(f"{path}: {task.name}, {len(choices)} choices of GPUs")


if __name__ == "__main__":
    main()
