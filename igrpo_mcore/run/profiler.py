"""``run.profile_steps``: torch-profiler traces of chosen steps, a Chrome trace a rank."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from igrpo_mcore import device
from igrpo_mcore.errors import cannot_write


@contextmanager
def profiled(step: int, steps: Sequence[int], run_dir: Path, rank: int) -> Iterator[None]:
    """Where ``step`` is among ``steps``, write ``run_dir/traces/step_S_rank_R.json`` of what runs inside.

    Host and GPU activities; open it in chrome://tracing or Perfetto. A profiled step is slower.

    Raises:
        UserError: the trace cannot be written.
    """
    if step not in steps:
        yield
        return
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.has_cuda() else [])]
    with profile(activities=activities) as profiler:
        yield
    path = run_dir / "traces" / f"step_{step:06d}_rank_{rank}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(path))
    except (OSError, RuntimeError) as error:
        raise cannot_write(path, OSError(str(error))) from error
