"""What of the trainer's environment a reward worker sees: a list of what is harmless, so no credentials."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import igrpo_mcore

PASSED = frozenset(
    """
    PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TERM TMPDIR TMP TEMP VIRTUAL_ENV CONDA_PREFIX
    LD_LIBRARY_PATH CUDA_VISIBLE_DEVICES PYTHONHASHSEED PYTHONWARNINGS PYTHONDONTWRITEBYTECODE
    PYTHONPYCACHEPREFIX XDG_CACHE_HOME HF_HOME HF_HUB_CACHE HF_HUB_OFFLINE HF_DATASETS_OFFLINE
    TRANSFORMERS_OFFLINE SSL_CERT_FILE REQUESTS_CA_BUNDLE
    """.split()  # noqa: SIM905
)
"""Variables that workers inherit, with those that begin with LC_. All others they do not see, API keys and
tokens among them; ``reward.limits.environment`` adds to the list."""


def worker_environment(more: Iterable[str] = ()) -> dict[str, str]:
    """The environment of a worker, with the parent's module search path so that user modules are found."""
    package_root = str(Path(igrpo_mcore.__file__).parent.parent)
    search_path = [*(os.path.abspath(entry) for entry in sys.path), package_root]
    names = PASSED | set(more)
    inherited = {name: value for name, value in os.environ.items() if name in names or name.startswith("LC_")}
    return {"OMP_NUM_THREADS": "1"} | inherited | {"PYTHONPATH": os.pathsep.join(search_path)}
