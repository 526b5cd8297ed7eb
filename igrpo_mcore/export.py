"""``igrpo export``: a run's checkpoint as a Hugging Face folder, written by the ranks that hold it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from igrpo_mcore.config.schema import Config
from igrpo_mcore.errors import UserError
from igrpo_mcore.families import architecture_of
from igrpo_mcore.policy.architecture import check_layout, load_hf_config
from igrpo_mcore.run.checkpoint_folder import CheckpointFolder
from igrpo_mcore.run.folder import CONFIG_FILE

if TYPE_CHECKING:
    import torch


BEST = "best"


def find_checkpoint(source: Path, step: int | str | None) -> Path:
    """The checkpoint that ``source`` names: itself, or of a run's folder the one of ``step`` (newest: None;
    ``BEST``: of the best held-out accuracy).

    Raises:
        UserError: there is none, or ``source`` is a checkpoint and ``step`` asks for one too.
    """
    if (source.parent.parent / CONFIG_FILE).is_file() and source.parent.name == "checkpoints":
        if step is not None:
            run = source.parent.parent
            raise UserError(f"{source} is one checkpoint already: leave --step out, or give the run {run}")
        return source
    if not (source / CONFIG_FILE).is_file():
        raise UserError(f"{source} is neither a run's folder nor one of its checkpoints/step_… folders")
    folder = CheckpointFolder(source / "checkpoints")
    if step is None:
        found = folder.latest()
    elif step == BEST:
        found = folder.best()
    else:
        found = folder.path(int(step))
    if found is None or not found.is_dir():
        held = ", ".join(path.name for path in folder.all()) or "none"
        which = "no checkpoint" if step is None else f"no checkpoint of step {step}"
        if step == BEST:
            which = "no checkpoint that was evaluated while training, which eval.every=N does"
        raise UserError(f"{source} holds {which} (it has {held})")
    return found


def export_checkpoint(config: Config, checkpoint: Path, out: Path, dtype: "torch.dtype") -> None:
    """Load the parameters at ``config.parallel`` and write them to ``out``. Collective.

    float32 of a bfloat16 run holds the rounded values that it trained and sampled with.

    Raises:
        UserError: a damaged checkpoint, a folder in use, a layout that does not fit.
    """
    import torch.distributed as dist

    from igrpo_mcore.policy.checkpoint import load_parameters
    from igrpo_mcore.policy.model import build_model
    from igrpo_mcore.policy.parallel import is_main_rank, start_process_groups, world_size
    from igrpo_mcore.weights.hf_export import export_hf

    CheckpointFolder(checkpoint.parent).read(checkpoint)
    hf_config = load_hf_config(config.model.path)
    architecture = architecture_of(hf_config, config.model.dtype)
    check_layout(architecture, config.parallel, 1, world_size())
    start_process_groups(config.parallel, config.train.seed)
    longest = config.rollout.longest_sequence
    chunks = build_model(architecture, config.parallel, config.model, longest)
    load_parameters(chunks, checkpoint)
    written = export_hf(chunks, hf_config, config.model.path, out, dtype)
    if is_main_rank():
        print(
            f"{out}: {len(written.files)} files, {written.total_bytes / 1e9:.3f} GB in "
            f"{str(dtype).removeprefix('torch.')}, from {checkpoint}",
            flush=True,
        )
    dist.destroy_process_group()


def use_no_gpu() -> None:
    """An export needs none, so it runs where there are too few for the layout. Before CUDA starts."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
