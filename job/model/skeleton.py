"""A base's modules without its weights, by its config alone: for what is asked before a training.

Every parameter is on torch's meta device, which has shapes and no memory.
"""

from pathlib import Path

from job.config.sections import AdapterModelSection, ModelSection
from job.model import Model
from job.model.architecture import attention_argument, explained, model_config
from job.model.load import bitsandbytes_settings, compute_dtype, read_quantization
from job.model.quantization import remove_own


def make_skeleton(
    folder: Path, section: ModelSection | AdapterModelSection, sharded: bool = False
) -> Model:
    """Return the model of the config.json in `folder`, with the modules of a loaded one.

    Experts of one that is to be `sharded` stay in 16 bits, as FSDP wants them.
    Raise ConfigError if it cannot be loaded as configured, DataError for a config that is wrong.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.quantizers.auto import get_hf_quantizer

    from job.model.four_bit import ExpertsQuantizer, quantizing

    uri = section.base or str(folder)
    quantization = read_quantization(folder, uri, section)
    config = model_config(folder, uri, section)
    dtype = compute_dtype(section.dtype)
    settings = bitsandbytes_settings(section) if quantization.by_recap else None
    if quantization.is_dequantized:
        remove_own(config)

    with explained(folder, uri), quantizing(experts=not sharded):
        quantizer, config, devices = get_hf_quantizer(config, settings, {"": "cpu"}, True, {})
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                config,
                dtype=dtype,
                attn_implementation=attention_argument(section),
                trust_remote_code=section.trust_remote_code,
            )
            if quantizer is not None:
                quantizer.preprocess_model(
                    model=model,
                    dtype=dtype,
                    device_map=devices,
                    checkpoint_files=None,
                    use_kernels=False,
                )
            if isinstance(quantizer, ExpertsQuantizer):
                quantizer.shape_experts(model)
    return model
