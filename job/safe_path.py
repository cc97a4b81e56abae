"""The import path of recap's processes: not the current folder, which anybody may have filled.

`python -m` looks in the current folder first: a `yaml.py` there would run with the rights of whoever
started recap.
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
    """Take the folder that `python -m` put first off `sys.path`, unless recap itself is imported from it."""
    if not sys.flags.safe_path and os.path.realpath(sys.path[0]) != OWN_FOLDER:
        del sys.path[0]


def safe_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what to set for Python processes, so that they import this recap and nothing from the
    current folder.

    An empty part of PYTHONPATH, as in `$PYTHONPATH:/x`, would be the current folder too.
    """
    folders = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    if OWN_FOLDER not in (*_installed_folders(), *folders):  # a checkout
        folders.append(OWN_FOLDER)
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(folders)}


def _installed_folders() -> list[str]:
    folders = [*map(sysconfig.get_path, ("purelib", "platlib")), site.getusersitepackages()]
    return [os.path.realpath(folder) for folder in folders]
