"""What a name of a model or data set is: a path here, or an id of the Hugging Face hub."""

import re
from pathlib import Path

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def is_remote(name: str) -> bool:
    """Whether it can only be an id of the hub."""
    return bool(HUB_ID.fullmatch(name)) and not Path(name).exists()
