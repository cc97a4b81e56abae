"""A base's modules without its weights, by its config alone: for what is asked before a training.

Every parameter is on torch's meta device, which has shapes and no memory.
"""

from pathlib import Path

from job.config.sections import AdapterModelSection, ModelSection
from job.errors import ConfigError, DataError
from job.model import Model
from job.model.load import bitsandbytes_settings, compute_dtype


def make_skeleton(folder: Path, section: ModelSection | AdapterModelSection) -> Model:
    """Return the model of the config.json in `folder`, with the modules of a loaded one.

    Raise ConfigError if it cannot be loaded as configured, DataError for a config that is wrong.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.quantizers.auto import get_hf_quantizer

    dtype = compute_dtype(section.dtype)
    settings = bitsandbytes_settings(section)
    try:
        config = AutoConfig.from_pretrained(
            str(folder), trust_remote_code=section.trust_remote_code
        )
        quantizer, config, devices = get_hf_quantizer(config, settings, {"": "cpu"}, True, {})
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                config,
                dtype=dtype,
                attn_implementation=section.attention,
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
    except (ImportError, ValueError, KeyError, OSError) as error:
        raise ConfigError(f"model: '{folder}' cannot be loaded as configured: {error}") from error
    except Exception as error:  # a config may fail in any line of a model's code
        raise DataError(f"model.base: the config.json in {folder} is wrong: {error}") from error
    return model
