"""The pre-trained checkpoint that slow tests use: SmolLM2-135M-Instruct (Llama, tied head)."""

from pathlib import Path

import pytest

from tests.support.ranks import ROOT

SMOLLM2 = ROOT / ".cache" / "real" / "smollm2-135m"


def smollm2() -> Path:
    """Its Hugging Face folder; the test that asks for it is skipped where there is none."""
    if not (SMOLLM2 / "config.json").is_file():
        pytest.skip(f"no pre-trained checkpoint in {SMOLLM2.relative_to(ROOT)}: `make real` makes it")
    return SMOLLM2
