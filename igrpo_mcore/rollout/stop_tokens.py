"""Which tokens end a completion."""

from typing import Any

from transformers import GenerationConfig

from igrpo_mcore.errors import UserError


def stop_token_ids(model_path: str, tokenizer: Any) -> tuple[int, ...]:
    """The checkpoint's end-of-sequence ids: its generation config's, and the tokenizer's own.

    Raises:
        UserError: neither names one, so that no completion could ever end by itself.
    """
    try:
        configured = GenerationConfig.from_pretrained(model_path).eos_token_id
    except OSError:  # a base checkpoint may come without generation_config.json
        configured = None
    found = configured if isinstance(configured, list) else [configured]
    ids = {token for token in [*found, tokenizer.eos_token_id] if token is not None}
    if not ids:
        raise UserError(f"{model_path} names no end-of-sequence token; add eos_token to its tokenizer config")
    return tuple(sorted(ids))
