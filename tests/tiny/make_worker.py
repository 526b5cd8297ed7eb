"""Makes a checkpoint of two warm-up steps; a process of its own, since Megatron's state is global."""

import sys
from pathlib import Path

from igrpo_mcore.tiny.checkpoint import WarmUp, make_tiny_checkpoint

SHORT = WarmUp(
    target=0.0, single_shot_until=1.0, most_steps=2, check_every=2, batch=8, problems=50, held_out=8
)


def main() -> None:
    stats = make_tiny_checkpoint("qwen3", Path(sys.argv[1]), seed=3, warm_up=SHORT)
    print(f"steps={stats.steps} accuracy={stats.accuracy!r}")


if __name__ == "__main__":
    main()
