"""A Hugging Face checkpoint on disk: which safetensors file holds which tensor, of which shape."""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from igrpo_mcore.errors import UserError, one_line
from igrpo_mcore.weights.table import EMBEDDING, HF_HEAD, Table

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_COMPARED_ROWS = 8192


@dataclass(frozen=True)
class Checkpoint:
    """``files`` and ``shapes`` by tensor name, read from the headers alone."""

    folder: Path
    files: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]


def resolve_checkpoint(path: str | Path) -> Path:
    """A local folder as it is; a hub id becomes its (downloaded or cached) snapshot folder.

    Raises:
        UserError: neither.
    """
    folder = Path(path)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(str(path), allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.model"])
        )
    except (OSError, HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise UserError(
            f"model.path={str(path)!r} is neither a folder nor a hub id that can be read "
            f"({one_line(error)}); give a folder with safetensors files"
        ) from error


def _files_of_index(folder: Path) -> list[str]:
    try:
        names = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder / INDEX} cannot be read as an index of safetensors files ({error!r}); fetch the "
            "checkpoint again"
        ) from error
    for name in names:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}, named by {INDEX}, is missing; fetch the checkpoint again")
    return names


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read the headers of a folder's safetensors files.

    Raises:
        UserError: no safetensors files, a file that the index names is missing, or one is damaged.
    """
    if (folder / INDEX).is_file():
        names = _files_of_index(folder)
    else:
        names = (
            [SINGLE] if (folder / SINGLE).is_file() else sorted(p.name for p in folder.glob("*.safetensors"))
        )
    if not names:
        raise UserError(
            f"{folder} holds no safetensors files; convert the checkpoint with transformers' save_pretrained"
        ) from FileNotFoundError(SINGLE)
    files: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    for name in names:
        try:
            with safe_open(folder / name, "pt") as handle:
                for key in handle.keys():  # noqa: SIM118 - not a dict
                    header = handle.get_slice(key)
                    files[key], shapes[key] = name, tuple(header.get_shape())
                    dtypes[key] = header.get_dtype()
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{folder / name} cannot be read as safetensors ({error}); fetch the checkpoint again"
            ) from error
    return Checkpoint(folder, files, shapes, dtypes)


def check_against_table(checkpoint: Checkpoint, table: Table) -> None:
    """Every tensor of the table is there with its shape, and nothing else.

    Raises:
        UserError: naming the first missing, misshapen or surplus tensor.
    """
    for name, tensor in table.tensors.items():
        if name not in checkpoint.shapes:
            raise UserError(
                f"checkpoint {checkpoint.folder} lacks tensor {name} of shape {list(tensor.shape)}; "
                "fetch or convert the checkpoint again"
            )
        if checkpoint.shapes[name] != tensor.shape:
            raise UserError(
                f"checkpoint {checkpoint.folder} has tensor {name} of shape {list(checkpoint.shapes[name])}, "
                f"its config asks for {list(tensor.shape)}; config.json and the safetensors files do not "
                "belong together"
            )
    for name in checkpoint.shapes:
        if name not in table.tensors and not table.may_ignore(name):
            raise UserError(
                f"checkpoint {checkpoint.folder} has tensor {name} that its config does not ask for; "
                "config.json and the safetensors files do not belong together"
            )


def check_head_copy(checkpoint: Checkpoint, table: Table) -> None:
    """A tied checkpoint that carries its head all the same has the embedding's values in it.

    Raises:
        UserError: the copy differs: transformers would compute with it, the policy with the embedding.
    """
    if not table.tied or HF_HEAD not in checkpoint.files:
        return
    embedding = table.by_param[EMBEDDING].tensors[0].name
    with (
        safe_open(checkpoint.folder / checkpoint.files[HF_HEAD], "pt") as copies,
        safe_open(checkpoint.folder / checkpoint.files[embedding], "pt") as originals,
    ):
        copy, original = copies.get_slice(HF_HEAD), originals.get_slice(embedding)
        rows = range(0, original.get_shape()[0], _COMPARED_ROWS)
        same = copy.get_shape() == original.get_shape() and all(
            bool((copy[r : r + _COMPARED_ROWS] == original[r : r + _COMPARED_ROWS]).all()) for r in rows
        )
    if not same:
        raise UserError(
            f"checkpoint {checkpoint.folder} has a {HF_HEAD} unlike {embedding} although its config.json "
            "says tie_word_embeddings=true; set that to false there if the head is meant"
        )
