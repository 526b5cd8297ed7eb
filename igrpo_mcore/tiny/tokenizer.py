"""The tiny checkpoint's tokenizer: one token a character, the tags and the draft's heading whole."""

import re
import string

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIALS = ("<pad>", "<eos>", "<unk>", "<|system|>", "<|user|>", "<|assistant|>")
WHOLE = ("<think>", "</think>", "<answer>", "</answer>", "Prior draft:")
"""Strings that are one token each; ordinary vocabulary, so that decoding keeps them."""
VOCAB_SIZE = 128
"""Padded up so that it divides by any tensor-parallel size of the tiny recipes (and vLLM's 64)."""
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<eos>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A fast tokenizer with ``len(tokenizer) <= VOCAB_SIZE``; any printable ASCII text round-trips.

    Special tokens (a role's opening, end of sequence, padding) are dropped by
    ``decode(skip_special_tokens=True)``, the tags are not.
    """
    tokens = [*SPECIALS, *WHOLE, *string.printable]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    pattern = "|".join([*map(re.escape, WHOLE), r"[\s\S]"])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=[token for token in SPECIALS if token.startswith("<|")],
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
