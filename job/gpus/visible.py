"""The GPUs that a process may use, by the names that CUDA_VISIBLE_DEVICES has for them."""

import re
from collections.abc import Callable, Mapping

# What a scheduler writes into NVIDIA_VISIBLE_DEVICES. Not `all`, which images set, nor `void`.
GIVEN_DEVICES = re.compile(r"(GPU-|MIG-|\d)")


def visible_entries(environment: Mapping[str, str]) -> list[str] | None:
    """Return the GPUs that CUDA_VISIBLE_DEVICES leaves visible, None if it is not set."""
    text = environment.get("CUDA_VISIBLE_DEVICES")
    return None if text is None else _entries(text)


def visible_gpus(environment: Mapping[str, str], count: Callable[[], int]) -> list[str]:
    """Return the names by which CUDA_VISIBLE_DEVICES can select each GPU that is visible here.

    `count` returns the number of GPUs that torch sees: of several MIG devices it counts one.
    """
    names = visible_entries(environment)
    if names is None:
        # CUDA gives a process one MIG device, the first, unless it names another.
        given = _entries(environment.get("NVIDIA_VISIBLE_DEVICES", ""))
        names = given if given and all(map(is_mig, given)) else None

    number = count()
    if names is None:
        return [str(index) for index in range(number)]
    if number and all(map(is_mig, names)):
        return names
    # CUDA ignores the names from the first one on that it does not know.
    return names[:number]


def gpus_of_ranks(environment: Mapping[str, str], count: Callable[[], int]) -> list[str]:
    """Return the GPUs of all training processes of this machine, as `visible_gpus` names them."""
    ranks = int(environment.get("LOCAL_WORLD_SIZE", "1"))
    return visible_gpus(environment, count)[:ranks]


def is_mig(name: str) -> bool:
    """Return True if this is the name of a MIG device, a part of a GPU."""
    return name.startswith("MIG-")


def _entries(text: str) -> list[str]:
    entries = []
    for entry in text.split(","):
        # CUDA ignores what follows an entry that names no device.
        if not GIVEN_DEVICES.match(entry.strip()):
            break
        entries.append(entry.strip())
    return entries
