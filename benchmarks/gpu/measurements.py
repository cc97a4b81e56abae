"""The measurements for a GPU, in order of worth: a run that is cut off still says the most.

Each is a list of groups. The variants of a group are in memory at once, which 80 GB must hold, and
are measured by turns. The first of them is the one that the others are compared with. By estimate,
all of them take nine minutes on an H100, of which a third is loading libraries.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Specification = Mapping[str, Any]
MASK_KEPT = {"job.training.forward.is_mask_needless": False}


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return `one` with the values of `other`, section by section."""
    found = dict(one)
    for key, value in other.items():
        is_section = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = merged(found[key], value) if is_section else value
    return found


# All activations kept, without dropout, and all rows of a step in one pass if their lengths allow.
FAST: dict[str, Any] = {
    "lora": {"dropout": 0.0},
    "training": {
        "batch_size": 16,
        "gradient_accumulation_steps": 1,
        "activation_checkpointing": False,
        "optimizer": "adamw_torch_fused",
    },
}
RECOMPUTED = merged(FAST, {"training": {"activation_checkpointing": True}})
LONG_ROWS = {"lora": {"dropout": 0.0}, "training": {"optimizer": "adamw_torch_fused"}}
TRL_TWO_PASSES = "--per_device_train_batch_size 8 --gradient_accumulation_steps 2"
TRL_ONE_PASS = "--per_device_train_batch_size 16 --gradient_accumulation_steps 1"


@dataclass(frozen=True)
class Group:
    """Variants that are measured by turns. With no rounds, the warm-up is the measurement."""

    variants: Mapping[str, Specification]
    rounds: int
    seconds: float  # limit, with loading


@dataclass(frozen=True)
class Measurement:
    """One table: its groups, and the quantities that are its columns."""

    name: str
    title: str
    groups: list[Group]
    columns: Mapping[str, str] = field(default_factory=dict)  # title by key; none shows all
    compared: str | None = None  # the key whose ratio to the first variant is shown


def measurements(shape: str = "7b", small: str = "1b") -> list[Measurement]:
    """Return all measurements, of a base of `shape`, and of a `small` one where size says nothing.

    With the shape `tiny`, the same variants run on a CPU in minutes, and the numbers mean nothing.
    """
    is_tiny = shape == "tiny"
    return [
        Measurement("ceilings", "What the card can do", _one("ceilings", shape, 40)),
        _training(shape, "4x24" if is_tiny else "tweetsumm"),
        _summaries(shape, "4x24" if is_tiny else "tweetsumm"),
        _long_rows(shape, 32 if is_tiny else 4096),
        _token_steps(shape, [1, 2] if is_tiny else [1, 32, 128]),
        _determinism(small if not is_tiny else shape, "16x24" if is_tiny else "tweetsumm"),
        _profiles(shape, "16x24" if is_tiny else "tweetsumm"),
        Measurement(
            "phases", "From the start of a command", _one("phases", small, 100, conversations=16)
        ),
        _memory([shape] if is_tiny else ["7b", "1b", "13b"], is_tiny),
        _step_options(shape, "4x24" if is_tiny else "tweetsumm"),
        _compiled(shape, 2 if is_tiny else 32),
    ]


def _one(kind: str, shape: str, seconds: float, **more: Any) -> list[Group]:
    return [Group({kind: {"kind": kind, "shape": shape, **more}}, rounds=0, seconds=seconds)]


def _training(shape: str, rows: str) -> Measurement:
    common = {"kind": "training", "shape": shape, "rows": rows}
    recap = {**common, "recipe": "recap"}
    return Measurement(
        "training",
        "Training, nf4, rows of TweetSumm's lengths, 16 in a step",
        [
            Group(
                {
                    "classic recipe": {**common, "recipe": "classic"},
                    "trl sft": {**common, "recipe": "trl", "flags": TRL_TWO_PASSES},
                    "recap, fast": {**recap, "config": FAST},
                },
                rounds=2,
                seconds=90,
            ),
            Group(
                {
                    "trl sft, 16 rows a pass": {**common, "recipe": "trl", "flags": TRL_ONE_PASS},
                    "recap, tweetsumm-llama2-7b.yaml": recap,
                    "recap, fast, recomputed": {**recap, "config": RECOMPUTED},
                },
                rounds=2,
                seconds=80,
            ),
        ],
        {
            "conversations_per_second": "conversations/s",
            "tokens_per_second": "tokens/s",
            "tflops": "TFLOP/s (4N)",
            "peak_gb": "peak GB",
            "reserved_gb": "reserved GB",
        },
        "conversations_per_second",
    )


def _long_rows(shape: str, tokens: int) -> Measurement:
    common = {"kind": "training", "recipe": "recap", "shape": shape}
    long = {**common, "rows": f"8x{tokens}"}
    short = {**common, "rows": "16x24" if shape == "tiny" else "tweetsumm"}
    two = merged(LONG_ROWS, {"training": _batch(2, 4, tokens)})
    # Nothing is recomputed, which 4N would not count.
    kept = {"packing": True, "activation_checkpointing": False}
    packed = merged(LONG_ROWS, {"training": {**_batch(1, 8, tokens), **kept}})
    plain = merged(packed, {"model": {"quantization": None}})
    return Measurement(
        "long-rows",
        f"Training, rows of {tokens:,} tokens: padded and recomputed, or packed and kept",
        [
            Group(
                {
                    "masked, 2 rows": {**long, "config": two, "patches": MASK_KEPT},
                    "unmasked, 2 rows": {**long, "config": two},
                    "packed": {**short, "config": packed},
                    "packed, bf16 base": {**short, "config": plain},
                },
                rounds=2,
                seconds=100,
            ),
        ],
        {"tokens_per_second": "tokens/s", "tflops": "TFLOP/s (4N)", "peak_gb": "peak GB"},
        "tokens_per_second",
    )


def _summaries(shape: str, rows: str) -> Measurement:
    common = {
        "kind": "summaries",
        "shape": shape,
        "rows": rows,
        "new_tokens": 4 if shape == "tiny" else 32,
        "target_modules": ["q_proj", "v_proj"],
    }
    notebook = {"way": "loop", "every": 2 if shape == "tiny" else 32}
    nf4 = {"quantization": "nf4"}
    return Measurement(
        "summaries",
        "Whole summaries, prompts of TweetSumm's lengths",
        [
            Group(
                {
                    "notebook's loop, nf4": {**common, **notebook, **nf4, "adapter": "float32"},
                    "recap, nf4": {**common, **nf4, "way": "engine", "adapter": "compute"},
                    "recap, 16 bits": {
                        **common,
                        "quantization": None,
                        "way": "engine",
                        "adapter": "compute",
                    },
                },
                rounds=2,
                seconds=95,
            )
        ],
        {"summaries_per_second": "summaries/s", "peak_gb": "peak GB"},
        "summaries_per_second",
    )


def _token_steps(shape: str, rows: list[int]) -> Measurement:
    plain = {**_decoding(shape, rows), "quantization": None}
    columns = {f"step_ms_{count}": f"ms a step, {count} rows" for count in rows}
    columns |= {f"prompt_tokens_per_second_{count}": f"prompt tokens/s, {count}" for count in rows}
    return Measurement(
        "token-steps",
        "A token step, by rows and form of the adapter",
        [
            Group(
                {
                    "bf16, bf16 adapter": {**plain, "adapter": "compute"},
                    "bf16, float32 adapter": {**plain, "adapter": "float32"},
                    "nf4, float32 adapter": {**plain, "quantization": "nf4", "adapter": "float32"},
                    "bf16, merged": {**plain, "adapter": "merged"},
                },
                rounds=1,
                seconds=90,
            ),
        ],
        {**columns, "peak_gb": "peak GB"},
        f"step_ms_{rows[1]}",
    )


def _compiled(shape: str, rows: int) -> Measurement:
    plain = {**_decoding(shape, [rows]), "quantization": None, "adapter": "merged"}
    variants = {
        "bf16, merged": plain,
        "static cache, compiled": {**plain, "is_static": True},
    }
    return Measurement(
        "compiled",
        "A token step with a cache of one size and a compiled model",
        [Group(variants, rounds=2, seconds=120)],
        {f"step_ms_{rows}": f"ms a step, {rows} rows"},
        f"step_ms_{rows}",
    )


def _step_options(shape: str, rows: str) -> Measurement:
    plain = {"kind": "training", "shape": shape, "rows": rows, "recipe": "recap", "config": FAST}
    variants = {"recap, fast": plain}
    for name, key in (("fused adapter", "fused_lora"), ("compiled layers", "compile")):
        variants[name] = {**plain, "config": merged(FAST, {"training": {key: True}})}
    return Measurement(
        "step-options",
        "Training with training.fused_lora, and with training.compile",
        [Group(variants, rounds=2, seconds=150)],
        {"conversations_per_second": "conversations/s", "peak_gb": "peak GB"},
        "conversations_per_second",
    )


def _decoding(shape: str, rows: list[int]) -> dict[str, Any]:
    return {
        "kind": "decoding",
        "shape": shape,
        "rows": rows,
        "prompt_tokens": 16 if shape == "tiny" else 350,
        "new_tokens": 4 if shape == "tiny" else 16,
        "target_modules": "all-linear",
    }


def _determinism(shape: str, rows: str) -> Measurement:
    steps = 4 if shape == "tiny" else 12
    common = {"kind": "determinism", "shape": shape, "rows": rows, "steps": steps}
    plain = {"training": {"optimizer": "adamw_torch"}}
    # The tensors of a large rank alone are paged.
    paged = {"training": {"optimizer": "paged_adamw_32bit"}, "lora": {"r": 64}}
    strict = merged(plain, {"training": {"deterministic": True}})
    return Measurement(
        "determinism",
        f"{steps} steps again, and resumed from the middle",
        [
            Group(
                {
                    "recap": {**common, "config": plain},
                    "masked": {**common, "config": plain, "patches": MASK_KEPT},
                    "deterministic: true": {**common, "config": strict},
                    "paged optimizer": {**common, "config": paged},
                },
                rounds=1,
                seconds=60,
            )
        ],
        {
            "is_repeatable": "same bytes again",
            "is_resumable": "same bytes resumed",
            "difference_of_repeat": "difference again",
            "difference_of_resumed": "difference resumed",
            "step_seconds": "s a step",
        },
        "step_seconds",
    )


def _profiles(shape: str, rows: str) -> Measurement:
    common = {"kind": "profile", "recipe": "recap", "shape": shape, "rows": rows}
    return Measurement(
        "profile",
        "One step, profiled",
        [Group({"recap, yaml": common, "recap, fast": {**common, "config": FAST}}, 1, 45)],
    )


def _memory(shapes: list[str], is_tiny: bool) -> Measurement:
    cases = {}
    for tokens in (24, 48) if is_tiny else (393, 2_048):
        for is_on in (True, False):
            batch = {"batch_size": 4, "gradient_accumulation_steps": 1, "max_steps": 1}
            name = f"4 x {tokens}{', checkpointed' if is_on else ''}"
            training = {**batch, "activation_checkpointing": is_on}
            cases[name] = {"rows": f"4x{tokens}", "config": {"training": training}}
    variants = {shape: {"kind": "memory", "shape": shape, "cases": cases} for shape in shapes}
    return Measurement(
        "memory",
        "Peak memory of a micro-batch in GB, by rows x tokens",
        [Group(variants, rounds=1, seconds=110)],
        {name: name for name in cases},
    )


def _batch(rows: int, accumulated: int, max_tokens: int) -> dict[str, Any]:
    return {
        "batch_size": rows,
        "gradient_accumulation_steps": accumulated,
        "max_tokens": max_tokens,
        "activation_checkpointing": True,
    }
