"""The tokenizer of a checkpoint."""

from typing import Any

from transformers import AutoTokenizer

from igrpo_mcore.errors import UserError, one_line


def load_tokenizer(path: str) -> Any:
    """transformers' tokenizer of a folder or hub id.

    Raises:
        UserError: there is none, or transformers cannot read it.
    """
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # a dozen unrelated classes, by what is missing
        raise UserError(
            f"model.path={path!r} has no tokenizer that transformers can read ({one_line(error)}); copy the "
            "model's tokenizer.json and tokenizer_config.json into it"
        ) from error
