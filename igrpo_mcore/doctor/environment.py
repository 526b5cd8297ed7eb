"""Environment variables: what ranks will find, and what is known to do harm."""

import os
import site

from igrpo_mcore.doctor.finding import Finding, note
from igrpo_mcore.rank_environment import VARIABLES, set_rank_environment

HARMFUL = {
    ("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"): "vLLM's sleep mode does not hold with it: unset",
    ("PYTORCH_ALLOC_CONF", "expandable_segments:True"): "vLLM's sleep mode does not hold with it: unset it",
    ("CUDA_LAUNCH_BLOCKING", "1"): "every kernel waits for the one before: unset it",
    ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0"): "a lost rank then hangs the others for ever: unset it",
    ("NCCL_P2P_DISABLE", "1"): "GPUs of a node then speak through the host: unset it",
    ("NCCL_IB_DISABLE", "1"): "nodes then speak over TCP: unset it",
    ("CUDA_VISIBLE_DEVICES", ""): "hides every GPU: unset it",
}


def variables(local_ranks: int) -> list[Finding]:
    """The table of ``rank_environment`` as ranks of this machine will have it, and what is harmful."""
    yours = {name for name in VARIABLES if name in os.environ}
    set_rank_environment(local_ranks)
    words = [
        f"{name}={os.environ[name]}{' (yours)' if name in yours else ''}"
        for name in VARIABLES
        if name in os.environ
    ]
    return [Finding("of every rank", " ".join(words)), *harmful()]


def harmful() -> list[Finding]:
    """A note for each setting that is known to do harm."""
    found = []
    for (name, value), reason in HARMFUL.items():
        actual = os.environ.get(name)
        if actual == value or (value and actual and value in actual.split(",")):
            found.append(note(name, actual, reason))
    return found + user_site()


def user_site() -> list[Finding]:
    """A note where ~/.local is searched before the environment's packages."""
    folder = site.getusersitepackages()
    if site.ENABLE_USER_SITE and os.path.isdir(folder):
        return [note("PYTHONNOUSERSITE", f"{folder} is searched too", "export PYTHONNOUSERSITE=1")]
    return []
