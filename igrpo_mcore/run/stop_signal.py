"""A job that is asked to stop finishes its step, writes a checkpoint and asks to be queued again."""

import os
import signal

REQUEUE_STATUS = 75
"""Exit status of a rank that stopped on request with a checkpoint (EX_TEMPFAIL)."""


class Stopped(SystemExit):
    """The run was asked to stop and has written the checkpoint of ``step``."""

    def __init__(self, step: int) -> None:
        super().__init__(REQUEUE_STATUS)
        self.step = step


class StopSignal:
    """SIGUSR1 (Slurm's warning before the time limit), and SIGTERM where srun started this rank.

    Under torchrun SIGTERM keeps its meaning, that another rank has failed and this one must end.
    """

    def __init__(self) -> None:
        self._received = False
        signals = [signal.SIGUSR1]
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            signals.append(signal.SIGTERM)
        for number in signals:
            signal.signal(number, self._receive)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)  # launch.enter_rank held them back

    def _receive(self, number: int, frame: object) -> None:
        self._received = True

    def on_any_rank(self) -> bool:
        """Whether any rank was told to stop; the same answer everywhere. Collective."""
        import torch  # the command line reads the names above without it
        import torch.distributed as dist

        received = torch.tensor(int(self._received))
        dist.all_reduce(received, op=dist.ReduceOp.MAX)
        return bool(received)
