"""Quirks of families in the modules of a model: which of them LoRA adapts, and which hold experts.

A part of `families`, by the same rules: a function for each quirk, which tests for the property.
"""

from typing import Any

from job.model import Model
from job.model.families import all_configs


def linear_modules(model: Model) -> dict[str, Any]:
    """Return the linear modules of the language model by name: those that LoRA can adapt.

    GPT-2 has Conv1D in place of Linear: without this, each of its `lora.target_modules` is refused
    as a module that the base does not have.

    Left out are the head, and what would never learn from text, or break:

    - Multimodal models (Gemma 3, Mistral 3, Qwen-VL): the towers for images and sound, and the
      projectors behind them. No gradient reaches them, and the adapter would be larger for nothing.
    - Mixtures of experts (Jamba, JetMoE, Llama 4): the routers. Some return more than one tensor,
      which LoRA cannot add to; and a router that changes sends tokens to experts that have not
      learned from them. Experts are no linear modules since transformers 5, but one parameter for
      all of them.
    - Mamba, Falcon-Mamba and Jamba: the projection of step sizes. transformers 5.19 calls it only
      in a quantized base, and else multiplies by its weight. An adapter there learns in 4 bits, and
      has no effect in 16 bits until it is merged.
    - DeepSeek-V4: a subclass of Linear that multiplies groups of features by weights of their own.
      What LoRA adds has another shape.
    """
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    left_out = [model.get_output_embeddings(), *_towers(model), *_routers(model)]
    left_out += _step_sizes(model)
    ids_left_out = {id(part) for module in left_out if module for part in module.modules()}
    ids_of_text = {id(part) for part in _language_model(model).modules()}

    found = {}
    for name, module in model.named_modules():
        is_adaptable = id(module) in ids_of_text and id(module) not in ids_left_out
        is_linear = isinstance(module, Linear | Conv1D) and not _is_grouped(module)
        if is_adaptable and is_linear:
            found[name] = module
    return found


def _is_grouped(module: Any) -> bool:
    """Return True for a subclass of Linear, by a model's own code, that computes something else.

    Those of quantization libraries compute the same from packed weights.
    """
    from job.model.four_bit import computes_what_linear_does

    is_of_a_model = ".modeling_" in type(module).__module__
    return is_of_a_model and not computes_what_linear_does(type(module))


def _language_model(model: Model) -> Model:
    """Return the part of a multimodal model that reads and writes text, or the whole model.

    Their config has another one inside, of the language model.
    """
    is_multimodal = model.config.get_text_config() is not model.config
    return model.get_decoder() if is_multimodal else model


def _towers(model: Model) -> list[Model]:
    """Return the models of images or sound within the model: they have a config of their own.

    Phi-4 multimodal and GIT keep them inside their language model.
    """
    from transformers import PreTrainedModel

    kinds_of_text = {type(config) for config in all_configs(model)}
    found = []
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and type(module.config) not in kinds_of_text:
            found.append(module)
    return found


def _routers(model: Model) -> list[Any]:
    """Return the linear modules that score experts: an output for each, or one for a shared one."""
    from torch.nn import Linear

    found = []
    for name, module in model.named_modules():
        count = _number_of_experts(module)
        if count is None:
            continue
        mixture = model.get_submodule(name.rpartition(".")[0])
        for part in mixture.modules():
            if isinstance(part, Linear) and part.out_features in (1, count):
                found.append(part)
    return found


def _step_sizes(model: Model) -> list[Any]:
    """Return the projections of step sizes: of layers that hold the decay of a state."""
    found = []
    for module in model.modules():
        if hasattr(module, "A_log") and hasattr(module, "dt_proj"):
            found.append(module.dt_proj)
    return found


def experts(model: Model) -> list[str]:
    """Return the names of the modules that hold experts, and of their parameters.

    Since transformers 5 (Qwen-MoE, Mixtral, DeepSeek, gpt-oss, Granite-MoE and others), one
    parameter has the weights of all experts of a layer. It is no linear module: peft adapts it only
    without dropout, and bitsandbytes leaves it in 16 bits.
    """
    found = []
    for name, module in model.named_modules():
        if _number_of_experts(module) is not None:
            found.append(name)
            found += [f"{name}.{own}" for own in _own_shapes(module)]
    return found


def shapes_of_experts(model: Model) -> list[tuple[int, int, int]]:
    """Return the shape of each parameter that has a matrix for each expert of a layer."""
    found = []
    for module in model.modules():
        if _number_of_experts(module) is not None:
            shapes = [tuple(shape) for shape in _own_shapes(module).values()]
            found += [shape for shape in shapes if len(shape) == 3]
    return found


def _number_of_experts(module: Any) -> int | None:
    """Return how many experts a module holds in its parameters; None for any other module."""
    shapes = _own_shapes(module)
    if not shapes:
        return None
    named = getattr(module, "num_experts", None)
    if isinstance(named, int):
        return named
    # LongCat has another name for the number.
    weights = shapes.get("down_proj", ())
    return weights[0] if len(weights) == 3 else None


def _own_shapes(module: Any) -> dict[str, Any]:
    """Return the shapes of the module's own parameters by name; of packed ones, those unpacked.

    Experts in 4 bits are in the module's `parametrizations`.
    """
    shapes = {name: each.shape for name, each in module.named_parameters(recurse=False)}
    for name, parametrized in getattr(module, "parametrizations", {}).items():
        if hasattr(parametrized[0], "quant_state"):
            shapes[name] = parametrized[0].quant_state.shape
    return shapes


def name_body(model: Model) -> None:
    """Correct a model that calls its body by a name which it does not have.

    Llama 4's text model is one: `base_model` is the whole model there. TRL 1.16 asks that for
    hidden states, and fails at the first step: "object has no attribute 'last_hidden_state'".
    """
    from transformers import PreTrainedModel

    if model.base_model is not model:
        return
    for name, part in model.named_children():
        if isinstance(part, PreTrainedModel):
            model.base_model_prefix = name
            return
