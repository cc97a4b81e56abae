"""Find the class of a base's model by its config, and translate what transformers refuses.

An error of transformers may be of any class, name none of recap's keys, and be kilobytes long.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from job.config.sections import AdapterModelSection, ModelSection
from job.errors import ConfigError, DataError, RecapError, is_out_of_memory, shortened
from job.model.families import sees_later_tokens
from job.model.files import CONFIG, GENERATION_CONFIG, files_in_folder, read_json

FLASH = re.compile(r"FlashAttention(\d)")  # in transformers' errors
LAYER = re.compile(r"(?P<list>(.+\.)?(layers|h|blocks)\.)\d+\.")


def model_config(path: Path, uri: str, section: ModelSection | AdapterModelSection) -> Any:
    """Return the transformers config of a base, of which AutoModelForCausalLM makes a model.

    A published multimodal base (Mistral 3, Qwen-VL, LLaVA) has a language model inside of a class
    that AutoModelForCausalLM does not know: registers that class. Without an image it is the
    language model, and its weights keep the names by which adapters and vLLM know them.

    Raise ConfigError if the base is none that generates text, or has not the attention that the
    section names; DataError if its config.json is wrong.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto.auto_factory import _get_model_class

    check_generation_config(path, uri)
    with explained(path, uri):
        config = AutoConfig.from_pretrained(str(path), trust_remote_code=section.trust_remote_code)
        if "AutoModelForCausalLM" in getattr(config, "auto_map", {}):
            return config
        if type(config) not in AutoModelForCausalLM._model_mapping:
            AutoModelForCausalLM.register(
                type(config), _class_around_language_model(config, uri), exist_ok=True
            )
        if sees_later_tokens(config):
            raise ConfigError(looks_ahead(f"{uri} is a {config.model_type}"))
        _check_attention(
            _get_model_class(config, AutoModelForCausalLM._model_mapping), uri, section
        )
    return config


def check_generation_config(path: Path, uri: str) -> None:
    """Raise DataError if transformers does not accept the base's generation_config.json.

    Loading the base reads it after all weights, and its error names no file.
    """
    from transformers import GenerationConfig

    if not (path / GENERATION_CONFIG).is_file():
        return
    try:
        GenerationConfig.from_pretrained(str(path))
    except Exception as error:  # of any class, by the key that is wrong
        raise DataError(
            f"model.base: the {GENERATION_CONFIG} of {uri} cannot be used ({shortened(error)}); "
            "correct it, or copy or fetch it again"
        ) from error


def looks_ahead(base: str) -> str:
    """Return the message for a base that must not be trained: `base` begins the sentence."""
    return (
        f"model.base: {base} whose tokens see those that come after them, as encoders do that fill "
        "in masked words: it cannot continue a text, and a training would only copy; use a base "
        "that was trained to generate text"
    )


def auto_class(config: Any) -> str:
    """Return the name of the class of transformers that loads a base of this config by itself."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    is_known = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if is_known or "AutoModelForCausalLM" in getattr(config, "auto_map", {}):
        return "AutoModelForCausalLM"
    return "AutoModelForMultimodalLM"


def is_of_further_layer(key: str, model: Any) -> bool:
    """Return True for the name of a tensor in a layer beyond the last one of the model.

    Layers that predict further tokens at once (DeepSeek, GLM) come after the last one, and no model
    of transformers uses them.
    """
    layer = LAYER.match(key)
    if layer is None or getattr(model.config.get_text_config(), "num_nextn_predict_layers", None):
        return False
    if model.config.get_text_config().num_hidden_layers < 1:
        return True
    names = [name for name, _ in model.named_parameters()]
    has_list = any(name.startswith(layer["list"]) for name in names)
    return has_list and not any(name.startswith(layer[0]) for name in names)


def attention_argument(section: ModelSection | AdapterModelSection) -> str | None:
    """Return the attention for transformers; None lets each part of a model choose by itself.

    A part that has no sdpa then takes eager.
    """
    return None if section.attention == "auto" else section.attention


@contextmanager
def explained(path: Path, uri: str) -> Iterator[None]:
    """Raise an error of transformers within the block as one of recap's.

    Running out of memory and errors of the device itself stay as they are.
    """
    from safetensors import SafetensorError
    from torch import AcceleratorError

    try:
        with _raising_at_once():
            yield
    except (RecapError, AcceleratorError):
        raise
    except SafetensorError as error:
        raise DataError(
            f"model.base: the weights of {uri} are damaged ({error}); fetch them again"
        ) from error
    except Exception as error:  # a model's code may fail in any way if its config is wrong
        if is_out_of_memory(error):
            raise
        raise _translated(error, path, uri) from error


@contextmanager
def _raising_at_once() -> Iterator[None]:
    """Let transformers raise a lack of memory, or a failure of the GPU, that quantizing ends with.

    transformers logs what fails while it converts a tensor, goes on with the next, and raises an
    error in the end that does not say why.
    """
    from torch import AcceleratorError
    from transformers import core_model_loading

    noting = core_model_loading.log_conversion_errors

    @contextmanager
    def raising(*arguments: Any, **named: Any) -> Iterator[None]:
        failure = None
        with noting(*arguments, **named):
            try:
                yield
            except Exception as error:
                if not isinstance(error, AcceleratorError) and not is_out_of_memory(error):
                    raise
                failure = error
        if failure is not None:
            raise failure

    core_model_loading.log_conversion_errors = raising
    try:
        yield
    finally:
        core_model_loading.log_conversion_errors = noting


def _translated(error: Exception, path: Path, uri: str) -> RecapError:
    text = str(error)
    reason = shortened(error)
    if "trust_remote_code" in text:
        return ConfigError(
            f"model.base: {uri} brings code of its own, which runs only with "
            "model.trust_remote_code: true and a revision that is pinned to a commit"
        )
    attention = FLASH.search(text)
    if isinstance(error, ImportError) and attention:
        return ConfigError(
            f"model.attention: flash_attention_{attention[1]} needs a package that is not "
            f"installed here ({reason}): install it, or leave model.attention out"
        )
    if isinstance(error, ImportError):
        return ConfigError(f"model.base: {uri} needs a package that is not installed: {reason}")
    if "attn_implementation" in text:
        # A part of a multimodal model may lack what the model itself has.
        return ConfigError(
            f"model.attention: not possible with a part of {uri} ({reason}); auto chooses by itself"
        )
    if "does not recognize this architecture" in text or "model_type" in text:
        return _unknown_type(path, uri)
    if isinstance(error, KeyError) and error.args:
        # A table of transformers that is read by a value of the config: hidden_act, rope_type.
        keys = _keys_of(error.args[0], read_json(files_in_folder(path, uri), CONFIG))
        if keys:
            reason = f"{' and '.join(keys)}: transformers has no {error}"
    return DataError(
        f"model.base: {uri} cannot be loaded by its config.json ({reason}); copy or fetch the base "
        "again, or use another"
    )


def _keys_of(value: Any, content: Mapping[str, Any]) -> list[str]:
    """Return the keys that have this value, also those of objects inside."""
    found = [key for key, each in content.items() if each == value]
    for key, each in content.items():
        if isinstance(each, Mapping):
            found += [f"{key}.{inner}" for inner in _keys_of(value, each)]
    return found


def _unknown_type(path: Path, uri: str) -> RecapError:
    from transformers import __version__

    model_type = read_json(files_in_folder(path, uri), CONFIG).get("model_type")
    if not isinstance(model_type, str):
        return DataError(
            f"model.base: the config.json of {uri} has no model_type; copy or fetch the base again"
        )
    return ConfigError(
        f"model.base: transformers {__version__} does not know the model type '{model_type}' of "
        f"{uri}: use a recap with a newer transformers, or another base"
    )


def _class_around_language_model(config: Any, uri: str) -> Any:
    """Return the class of a multimodal model that generates text; ConfigError for any other."""
    from transformers import AutoModelForMultimodalLM

    mapping = AutoModelForMultimodalLM._model_mapping
    is_nested = config.get_text_config() is not config
    if is_nested and not config.is_encoder_decoder and type(config) in mapping:
        wrapper = mapping[type(config)]
        if wrapper.can_generate():
            return wrapper
    raise ConfigError(
        f"model.base: {uri} is a {config.model_type}, which is no language model that continues a "
        "text: use one that AutoModelForCausalLM loads, or a multimodal model around one"
    )


def _check_attention(
    model_class: Any, uri: str, section: ModelSection | AdapterModelSection
) -> None:
    """Raise ConfigError if the section names an attention that the class does not have."""
    supported = ["auto", "eager"]
    if model_class._supports_sdpa:
        supported.append("sdpa")
    if model_class._supports_flash_attn:
        supported += ["flash_attention_2", "flash_attention_3"]
    if section.attention not in supported:
        raise ConfigError(
            f"model.attention: {section.attention} is not possible with {uri}: its model has "
            f"{', '.join(supported)}; auto chooses by itself"
        )
