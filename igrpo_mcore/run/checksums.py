"""A checkpoint's files and their SHA-256, in the format of ``sha256sum``, which can check them too."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from igrpo_mcore.errors import UserError
from igrpo_mcore.run.progress import beat

MANIFEST = "SHA256SUMS"


def digest_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal. Raises ``OSError``."""
    found = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(2**24):
            found.update(block)
            beat()
    return found.hexdigest()


def write_manifest(folder: Path, digests: Mapping[str, str]) -> None:
    """``digests`` by the name of a file in ``folder``. Raises ``OSError``."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(digests.items())]
    (folder / MANIFEST).write_text("".join(lines))


def read_manifest(folder: Path) -> dict[str, str]:
    """Raises ``UserError`` where there is none or it is damaged."""
    try:
        pairs = [line.split("  ", 1) for line in (folder / MANIFEST).read_text().splitlines()]
        digests = {name: digest for digest, name in pairs}
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / MANIFEST} is missing or damaged") from error
    if not digests or any(len(digest) != 64 for digest in digests.values()):
        raise UserError(f"{folder / MANIFEST} is missing or damaged")
    return digests


def first_damage(folder: Path, part: int = 0, parts: int = 1) -> str | None:
    """What is wrong with one of ``parts`` shares of the manifest's files; None: nothing.

    Reads the share whole.
    """
    try:
        digests = read_manifest(folder)
        for name in _share(folder, list(digests), part, parts):
            if not (folder / name).is_file():
                return f"{name} is missing"
            if digest_of(folder / name) != digests[name]:
                return f"{name} is not what was written there"
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror})"
    return None


def _share(folder: Path, names: Sequence[str], part: int, parts: int) -> list[str]:
    sizes = {name: (folder / name).stat().st_size if (folder / name).is_file() else 0 for name in names}
    return sorted(names, key=lambda name: (-sizes[name], name))[part::parts]
