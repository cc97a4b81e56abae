"""Compare the weights of a base with the model of its config.json: names and shapes of tensors.

Once a base is loaded, by what transformers reports of it; before that, by the headers of its files:
transformers loads tensors that have shapes and no content, so that the names which it changes, ties
or merges are right in both.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from job.config.sections import AdapterModelSection, ModelSection
from job.errors import ConfigError, DataError
from job.model import Model
from job.model.architecture import explained, is_of_further_layer, model_config
from job.model.files import BaseFiles, check_names
from job.model.headers import header_shapes
from job.model.quantization import (
    Quantization,
    is_part_of_quantization,
    unnamed_quantization,
)


def check_headers(
    files: BaseFiles,
    folder: Path,
    section: ModelSection | AdapterModelSection,
    quantization: Quantization,
) -> list[str] | None:
    """Return the names of the tensors that the model does not use, by headers of the weights alone.

    `folder` has the small files. Return None for a base that is quantized already, whose tensors
    have other shapes than its model, and for one with code of its own. Raise what `check_whole`
    raises.
    """
    if quantization.own is not None or section.trust_remote_code:
        return None
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.auto_factory import _get_model_class

    config = model_config(folder, files.uri, section)
    tensors: dict[str, Any] = {}
    with explained(folder, files.uri), _without_report():
        for name in check_names(files):
            with files.open(name) as file:
                shapes = header_shapes(file, files.sizes[name], f"model.base: {files.uri}/{name}")
            for key, shape in shapes.items():
                tensors[key] = torch.empty(shape, device="meta")
        model_class = _get_model_class(config, AutoModelForCausalLM._model_mapping)
        # As AutoModelForCausalLM does for the language model of a multimodal base (Qwen 3.5).
        if config.sub_configs.get("text_config") is model_class.config_class:
            config = config.get_text_config()
        model, loaded = model_class.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            device_map={"": "meta"},
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    return check_whole(model, loaded, files.uri, quantization)


def check_whole(
    model: Model, loaded: Mapping[str, Any], uri: str, quantization: Quantization
) -> list[str]:
    """Return the names of the tensors that the model does not use, by transformers' report.

    Raise DataError for tensors that are missing, of another shape, or that must not be ignored:
    transformers fills the missing ones with random numbers, and ignores those that it does not
    expect, and weights whose scales are ignored are other weights. Raise ConfigError if they are
    those of a quantization.
    """
    # transformers compares no shapes of a base that it quantizes.
    mismatched = [key for key, *_ in loaded["mismatched_keys"]] + _of_another_shape(model)
    unfit = sorted({*loaded["missing_keys"], *mismatched})
    if unfit and quantization.own:
        raise ConfigError(
            f"model.base: {uri} is quantized ({quantization.own}) in a way that transformers "
            f"does not read: {len(unfit)} tensors are not there, or of another shape "
            f"({', '.join(unfit[:3])}); use the base that it was made from"
        )
    if unfit:
        raise DataError(
            f"model.base: the weights of {uri} do not fit its config.json: {len(unfit)} "
            f"tensors are not there, or of another shape ({', '.join(unfit[:3])}); "
            "copy or fetch the base again"
        )

    unexpected = sorted(loaded["unexpected_keys"])
    of_weights = [key for key in unexpected if is_part_of_quantization(key, quantization)]
    if of_weights:
        raise unnamed_quantization(of_weights, uri)
    beyond = [key for key in unexpected if is_of_further_layer(key, model)]
    if beyond:
        raise DataError(
            f"model.base: the weights of {uri} have more layers than its config.json names "
            f"({', '.join(beyond[:3])}); copy or fetch the base again"
        )
    return unexpected


def _of_another_shape(model: Model) -> list[str]:
    """Return the names of the weights that have another shape than their layer, also in 4 bits.

    Norms and the like do not know their shape.
    """
    from torch.nn import Embedding, Linear

    found = []
    for name, module in model.named_modules():
        # By its name: for plain weights, bitsandbytes is not imported, which takes a second.
        is_packed = type(module).__name__ == "Linear4bit"
        weight = getattr(module, "weight", None)
        if type(module) is Embedding:
            wanted = (module.num_embeddings, module.embedding_dim)
        elif is_packed or type(module) is Linear:
            wanted = (module.out_features, module.in_features)
        else:
            continue
        kept = getattr(weight, "quant_state", None) if is_packed else weight
        if kept is not None and tuple(kept.shape) != wanted:
            found.append(f"{name}.weight")
    return found


@contextmanager
def _without_report() -> Iterator[None]:
    """During the block, keep transformers from logging its own table of what does not fit."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    shows_progress = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shows_progress:
            logging.enable_progress_bar()
