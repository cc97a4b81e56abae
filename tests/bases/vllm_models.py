"""The bases of the zoo that vLLM 0.32 knows, by the class in their config.json.

Read from vLLM's own registry, and held to it by tests/vllm/test_bases.py. It says that vLLM has
code for a class, not that the two were tried together.
"""

# vLLM has the model, but no adapters beside it: `adapter_weights: merged`.
MERGED_ONLY = {
    "BloomForCausalLM",
    "FalconForCausalLM",
    "FalconMambaForCausalLM",
    "GPT2LMHeadModel",
    "GPTJForCausalLM",
    "Gemma3nForCausalLM",
    "Mamba2ForCausalLM",
    "MambaForCausalLM",
    "StableLmForCausalLM",
    "Zamba2ForCausalLM",
}
UNKNOWN_TO_VLLM = {
    "BambaForCausalLM",
    "CodeGenForCausalLM",
    "GPTNeoForCausalLM",
    "HeliumForCausalLM",
    "MiniMaxForCausalLM",
    "MptForCausalLM",
    "PhimoeForCausalLM",
    "RecurrentGemmaForCausalLM",
    "XGLMForCausalLM",
}


def vllm_cell(architecture: str) -> str:
    """Return the cell of the page for a class."""
    if architecture in UNKNOWN_TO_VLLM:
        return "no"
    return "merged" if architecture in MERGED_ONLY else "yes"
