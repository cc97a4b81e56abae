"""Simulate the training step of a config on its base, known by the files in a folder.

Of large bases few layers are simulated: each further one adds as many bytes to each phase.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm
from pathlib import Path
from typing import Any

from job.config.sections import ModelSection
from job.config.training_sections import LoraSection
from job.memory.fakes import adapt, keep_layers, layers_of
from job.memory.step import Peak, Step, simulate_step
from job.model import Model
from job.model.load import compute_dtype
from job.model.skeleton import make_skeleton

MIN_LAYERS_TO_SKIP = 8  # fewer are all simulated
MAX_PERIOD = 8  # of layers that take turns


@dataclass(frozen=True)
class Subject:
    """The model of simulations: the folder with a base's small files, and two sections.

    `skeleton` is the base without weights, of the modules that FSDP shards if it `is_shared`. Each
    simulation uses up another one.
    """

    folder: Path
    model: ModelSection
    lora: LoraSection
    skeleton: Model
    is_shared: bool = False


def make_subject(
    folder: Path, section: ModelSection, lora: LoraSection, is_shared: bool = False
) -> Subject:
    """Make the base of the config.json in `folder`. Raises what `make_skeleton` raises.

    `section.dtype` is that of the computation, not "auto".
    """
    skeleton = make_skeleton(folder, section, is_shared)
    return Subject(folder, section, lora, skeleton, is_shared)


def simulate(subject: Subject, step: Step) -> Peak:
    """Return the peak of a step.

    Where not all layers are simulated, the reserved bytes are a ratio, within about 4%.
    """
    counts = layers_to_simulate(subject.skeleton, step.recomputed)
    if not step.has_earlier_gradients:
        # Then the peak may be in any layer: activations become fewer, and gradients more.
        counts = None
    if counts is None:
        return _simulate(subject, step, None)
    whole = len(layers_of(subject.skeleton))
    few, more = counts
    small = _simulate(subject, step, few)
    large = _simulate(subject, step, more)
    return extrapolate(small, large, (whole - few) // (more - few))


def _simulate(subject: Subject, step: Step, layers: int | None) -> Peak:
    # bitsandbytes' weights have no deep copy.
    base = make_skeleton(subject.folder, subject.model, subject.is_shared)
    if layers is not None:
        keep_layers(base, layers)
    model = adapt(base, subject.lora)
    return simulate_step(model, step, compute_dtype(subject.model.dtype))


def extrapolate(small: Peak, large: Peak, times: int) -> Peak:
    """Return the peak of `small` with `times` as much more as `large` has."""
    phases: dict[str, dict[str, int]] = {}
    for phase, parts in large.phases.items():
        before = small.phases[phase]
        phases[phase] = {}
        for part, size in parts.items():
            first = before.get(part, 0)
            phases[phase][part] = first + (size - first) * times
    peak = Peak(phases, 0)
    return Peak(phases, peak.tensors * large.reserved // large.tensors)


def layers_to_simulate(base: Model, recomputed: int | None) -> tuple[int, int] | None:
    """Return two numbers of first layers, of which the second has one period more.

    The other layers are more such periods. Each `recomputed`-th layer recomputes. Return None if
    all layers must be simulated.
    """
    layers = layers_of(base)
    if layers is None or len(layers) < MIN_LAYERS_TO_SKIP:
        return None
    kinds = _kinds(base, layers)
    for period in range(1, MAX_PERIOD + 1):
        if all(kind == kinds[number % period] for number, kind in enumerate(kinds)):
            period = lcm(period, recomputed or 1)
            rest = len(layers) % period
            few = rest + period if rest + period > 1 else 2
            more = few + period
            return (few, more) if more < len(layers) else None
    return None


def _kinds(base: Model, layers: Sequence[Any]) -> list[Any]:
    """Return what makes layers alike: shapes of weights, and the kind of their attention."""
    types = getattr(base.config.get_text_config(), "layer_types", None) or []
    kinds = []
    for number, layer in enumerate(layers):
        shapes = [(name, tuple(each.shape)) for name, each in layer.named_parameters()]
        attention = types[number] if number < len(types) else None
        kinds.append((attention, shapes))
    return kinds
