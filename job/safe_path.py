"""Keep the current folder off the import path of recap's processes.

`python -m` looks in the current folder first. A `yaml.py` that somebody left there would run with
the rights of the user of recap.
"""

import os
import site
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import job

OWN_FOLDER = str(Path(job.__file__).resolve().parent.parent)


def forget_current_folder() -> None:
    """Remove the folder that `python -m` put first on `sys.path`, unless recap itself is in it."""
    if not sys.flags.safe_path and os.path.realpath(sys.path[0]) != OWN_FOLDER:
        del sys.path[0]


def safe_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables for Python processes, by which they import this recap.

    They import nothing from the current folder. An empty part of PYTHONPATH, as in
    `$PYTHONPATH:/x`, would be the current folder too, and is removed.
    """
    folders = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    is_checkout = OWN_FOLDER not in _installed_folders()
    if is_checkout and OWN_FOLDER not in folders:
        folders.append(OWN_FOLDER)
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(folders)}


def _installed_folders() -> list[str]:
    folders = [*map(sysconfig.get_path, ("purelib", "platlib")), site.getusersitepackages()]
    return [os.path.realpath(folder) for folder in folders]
