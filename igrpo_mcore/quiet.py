"""Keep the libraries' start-up chatter off the terminal; their errors stay."""

import logging
import os
import warnings

NOISY = ("megatron", "torch.utils.cpp_extension", "torch.distributed", "vllm", "transformers", "gloo")


def quiet_libraries() -> None:
    """Drop warnings and log lines below ERROR of the libraries this project drives.

    ``IGRPO_VERBOSE=1`` leaves them on.
    """
    if os.environ.get("IGRPO_VERBOSE") == "1":
        return
    warnings.filterwarnings("ignore", module=rf"({'|'.join(NOISY)}|torch)(\.|$)")
    warnings.filterwarnings("ignore", category=SyntaxWarning)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    # the launcher says itself which rank failed, and the rank says why
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
