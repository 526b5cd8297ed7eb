"""The array that `igrpo sweep --slurm` submits, on a real Slurm; what a task starts is a stand-in."""

from pathlib import Path

import pytest

from igrpo_mcore.study import sweep
from igrpo_mcore.study.sweep import run_sweep
from tests.slurm.local_slurm import LocalSlurm
from tests.support.ranks import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RECIPE = "model: {path: nvidia/OpenMath-Nemotron-7B, dtype: float32}\ndata: {path: set.jsonl}\n"
SWEEP = (
    "recipe: r.yaml\nvariants: {plain: [rollout.selection=none], best: ['data.system_prompt=a \"b\" $c']}\n"
)


def test_each_task_is_a_run(slurm: LocalSlurm, tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "slurm/logs").mkdir(parents=True)
    (tmp_path / "slurm/igrpo_7b.sh").write_text((ROOT / "slurm/igrpo_7b.sh").read_text())
    (tmp_path / "slurm/common.sh").write_text('printf "<%s>" "$@" >"task-$SLURM_ARRAY_TASK_ID"\n')
    (tmp_path / "r.yaml").write_text(RECIPE)
    (tmp_path / "s.yaml").write_text(SWEEP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "check", lambda *_, **__: None)
    assert run_sweep(Path("s.yaml"), slurm=True, dry=True, at_a_time=1) == 0
    script = "#!/usr" + capsys.readouterr().out.partition("#!/usr")[2]
    (tmp_path / "array.sh").write_text(script)
    slurm.sbatch("array.sh", cwd=tmp_path)
    tasks = [tmp_path / "task-0", tmp_path / "task-1"]
    slurm.wait_for(lambda: all(task.exists() and task.read_text() for task in tasks), 120, "both tasks")
    assert tasks[0].read_text().startswith("<r.yaml><rollout.selection=none><train.seed=0>")
    assert tasks[1].read_text().startswith('<r.yaml><data.system_prompt=a "b" $c><train.seed=0>')
