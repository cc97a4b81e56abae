"""The keys by which an adapter serves: those that trainings, nights and evaluations share."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from job.config.redaction import RedactionSection
from job.config.sections import DType, Quantization, Section

EngineName = Annotated[
    Literal["auto", "transformers", "vllm"],
    Field(
        description="Engine of generation. auto is vllm if it is installed, can serve the model, "
        "and is as fast as transformers. On a GPU, auto is transformers for a night of fewer than "
        "500 conversations, since vLLM takes long to start. A night that does not set the key "
        "takes the engine that its adapter was judged with, however few its conversations are."
    ),
]
AdapterWeights = Annotated[
    Literal["separate", "merged"],
    Field(
        description="Whether the adapter's weights stay separate from the base's or are merged "
        "into them once. merged is a little faster, and rounds the weights to dtype."
    ),
]
TensorParallel = Annotated[
    int,
    Field(
        ge=1,
        description="Number of GPUs that share the weights, for a base that does not fit into one. "
        "Above 1 it is for vLLM only, and must divide the base's number of attention heads.",
    ),
]
AdapterDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{12,64}$")]
LongConversations = Annotated[
    Literal["keep_ends", "hierarchical"],
    Field(
        description="What to do with conversations that are too long for the model. keep_ends "
        "drops whole turns from the middle. hierarchical summarizes parts, and then the summaries "
        "of the parts."
    ),
]
Redaction = Annotated[
    RedactionSection | None,
    Field(
        description="Which personal data is replaced by placeholders before the model reads it. "
        "null replaces none, and {} all kinds."
    ),
]

# The keys of serving: a night takes those that it does not set from its adapter's serving.json.
SERVING_KEYS = ("engine", "adapter_weights", "tensor_parallel")
READING_KEYS = ("long_conversations", "redaction")
SERVING_KEYS_BY_SECTION = {
    "model": ("quantization", "dtype"),
    "data": ("cleaning",),
    # The others decide how fast a summary is made.
    "generation": ("max_new_tokens", "temperature", "top_p", "seed", "max_input_tokens"),
}


class ServeSection(Section):
    """Serving of the adapter: by nights, and by the evaluation after the training."""

    quantization: Quantization | None = Field(
        None,
        description="Quantization of the base's weights when the adapter serves. null loads them "
        "in dtype, as a night does by default.",
    )
    dtype: DType = Field(
        "auto",
        description="Data type of computation when the adapter serves. auto is bfloat16 on GPUs "
        "that support it, float16 on other GPUs, and float32 on CPU.",
    )
    engine: EngineName = "auto"
    adapter_weights: AdapterWeights = "separate"
    tensor_parallel: TensorParallel = 1
    long_conversations: LongConversations = "keep_ends"
    redaction: Redaction = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        check_serving(self.quantization, self.engine, self.adapter_weights, self.tensor_parallel)
        return self


def check_serving(
    quantization: str | None, engine: str, adapter_weights: str, tensor_parallel: int
) -> None:
    """Raise ValueError for values that exclude each other."""
    if engine == "transformers" and tensor_parallel > 1:
        raise ValueError(
            f"tensor_parallel: {tensor_parallel} is for vLLM, and engine is transformers, "
            "which loads a base into one GPU: set engine: vllm, or tensor_parallel: 1 with "
            "quantization: nf4-double, if the base fits into one GPU in 4 bits"
        )
    if adapter_weights == "merged" and quantization is not None:
        raise ValueError(
            "adapter_weights: merged is for weights of 16 or 32 bits: merging into 4-bit ones "
            "changes what an adapter does; set quantization: null, or adapter_weights: separate"
        )
