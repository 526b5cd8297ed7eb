"""``igrpo eval``: single-shot accuracy, pass@k and majority vote, by engines of the run's own kind."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from igrpo_mcore.collective import gather_objects
from igrpo_mcore.config.schema import Config
from igrpo_mcore.errors import UserError, cannot_write
from igrpo_mcore.evaluation.answered import Answered
from igrpo_mcore.evaluation.engines import start_sampler
from igrpo_mcore.evaluation.figures import HELD_OUT, Evaluation
from igrpo_mcore.evaluation.files import figures_path, read, table, write
from igrpo_mcore.evaluation.fingerprint import fingerprint
from igrpo_mcore.evaluation.journal import Journal
from igrpo_mcore.evaluation.problems import ProblemSet, problem_sets, split_names
from igrpo_mcore.evaluation.sampling import KEY, batches, problems_a_batch, sampling_of
from igrpo_mcore.evaluation.suites import SUITES
from igrpo_mcore.evaluation.votes import winners
from igrpo_mcore.launch import CHECKED, in_job, start_local_ranks
from igrpo_mcore.policy.parallel import is_main_rank
from igrpo_mcore.preflight import check_prompts, local_ranks, preflight
from igrpo_mcore.rollout.sampler import Sampler
from igrpo_mcore.run.folder import run_dir
from igrpo_mcore.target import Target, target_of
from igrpo_mcore.weights.checkpoint import resolve_checkpoint


@dataclass(frozen=True)
class Request:
    """What the command line asks for: ``--suite``, ``--samples``, ``--problems`` and so on. ``show`` is the
    number of problems whose completions are printed, ``against`` earlier figures to print beside."""

    suites: tuple[str, ...] = ()
    samples: int | None = None
    problems: int | None = None
    against: Path | None = None
    show: int = 4
    step: int | str | None = None

    def arguments(self) -> list[str]:
        """The same as a command line."""
        named = ("samples", "problems", "against", "show", "step")
        values = [(name, getattr(self, name)) for name in named]
        given = [part for name, value in values if value is not None for part in (f"--{name}", str(value))]
        return [*(part for suite in self.suites for part in ("--suite", suite)), *given]


def run_eval(source: Path, overrides: list[str] | None, request: Request) -> int:
    """Check everything and start the local ranks, or join a job's; the exit status.

    Raises:
        UserError: with the first thing that is wrong, before a rank starts.
    """
    target = target_of(source, overrides, request.step)
    config = target.config
    judged_by_accuracy(config, request.suites)
    sets = problem_sets(config, split_names(request.suites), request.samples, request.problems)
    check_against(request.against, sets)
    if in_job():
        if os.environ["RANK"] == "0" and os.environ.get(CHECKED) != "1":
            check(config, int(os.environ["WORLD_SIZE"]), sets)
        evaluate(target, sets, request)
        return 0
    ranks = local_ranks(config)
    check(config, ranks, sets)
    os.environ[CHECKED] = "1"
    arguments = ["eval", str(source), *(overrides or []), *request.arguments(), f"run.name={config.run.name}"]
    return start_local_ranks(ranks, arguments)


def judged_by_accuracy(config: Config, suites: Sequence[str]) -> None:
    """A named suite is judged by the accuracy reward, with the format's where the recipe weighs it; held-out
    problems, files and generated ones by the recipe's own rewards."""
    if any(name.partition("=")[0] in SUITES for name in split_names(suites)):
        weights = config.reward.weights
        config.reward.weights = {"accuracy": 1.0, "format": weights.get("format", 0.0)}


def check(config: Config, ranks: int, sets: Sequence[ProblemSet]) -> None:
    """What can be known to fail before ranks start.

    Raises:
        UserError: a layout, checkpoint or reward that cannot be used, or a prompt that is too long.
    """
    preflight(config, ranks, writes_run=False, reads_data=False)
    for problem_set in sets:
        check_prompts(config, problem_set.problems)


def evaluate(target: Target, sets: Sequence[ProblemSet], request: Request) -> None:
    """Sample, judge, and leave each set's figures and completions in the run's folder. Collective.

    Figures go to ``eval/step_N.json`` (a named suite's to ``eval/SUITE/step_N.json``) with a table and a plot
    beside, completions to ``step_N.jsonl`` as they are finished: the same command goes on from there.

    Raises:
        UserError: a damaged checkpoint, or a file that cannot be written.
    """
    config, step = target.config, target.step
    run = run_dir(config.run)
    before = read(request.against) if request.against and is_main_rank() else None
    sampler = start_sampler(config, target.checkpoint)
    weights = target.checkpoint or resolve_checkpoint(config.model.path)
    measured = []
    for problems in sets:
        path = figures_path(run, problems.name, step)
        answered = _answers(sampler, config, problems, weights, path.with_suffix(".jsonl"))
        if is_main_rank():
            majority = winners(answered, sampler.reward_options, config.reward.workers)
            found = Evaluation.of(step, answered, suite=problems.name, winners=majority)
            write(path, found)
            measured.append(found)
            _print(path, found, answered, request.show, before)
    if len(measured) > 1:
        _write_together(run / "eval", step, measured)
    sampler.close()


def _answers(
    sampler: Sampler, config: Config, problems: ProblemSet, weights: Path, path: Path
) -> list[Answered]:
    """All lines of a set on the main rank, sampled or found in the journal; the other ranks have none."""
    sampling = sampling_of(config, problems.samples)
    batch, total = problems_a_batch(config, problems.samples), len(problems.problems)
    journal, answered = None, []
    if is_main_rank():
        journal = Journal(path, fingerprint(config, weights, problems.name, problems.problems, sampling))
        answered = journal.finished(batch, total)
        if answered:
            print(f"{path}: {len(answered)} of {total} problems are there already", flush=True)
    done = gather_objects(len(answered))[0]
    key = KEY if problems.name == HELD_OUT else f"{KEY}/{problems.name}"
    for groups in batches(sampler, problems.problems, sampling, key, batch, done):
        if journal is None:
            continue
        lines = [Answered.of(group, keep_tokens=config.eval.keep_tokens) for group in groups]
        journal.append(lines)
        answered += lines
        if len(answered) < total:
            right = [right for line in answered for right in line.right]
            print(f"{len(answered)} of {total} problems, accuracy {sum(right) / len(right):.3f}", flush=True)
    return answered


def _print(
    path: Path, found: Evaluation, answered: Sequence[Answered], show: int, before: Evaluation | None
) -> None:
    for line in answered[:show]:
        print(f"  {line.problem.problem}   [{line.problem.answer}]")
        for text, score in list(zip(line.texts, line.scores, strict=True))[:3]:
            print(f"    {score.total:g}  {text!r}")
    print(f"{path}: {found}")
    if before is not None:
        gain = found.accuracy - before.accuracy
        print(f"{'before':<8} {before}\n{'after':<8} {found}\n{'gain':<8} {gain:+.3f}")
    print(end="", flush=True)


def _write_together(folder: Path, step: int, measured: Sequence[Evaluation]) -> None:
    """One table and one plot of all suites of this call."""
    from igrpo_mcore.evaluation.plot import draw_pass_at

    path = folder / f"suites_step_{step}.md"
    try:
        path.write_text(table(measured))
        draw_pass_at(measured, path.with_suffix(".png"))
    except OSError as error:
        raise cannot_write(path, error) from error
    print(f"\n{table(measured)}\n{path}", flush=True)


def check_against(against: Path | None, sets: Sequence[ProblemSet]) -> None:
    """Raises ``UserError`` where ``--against`` cannot be printed beside one set's figures."""
    if against is None:
        return
    if not against.is_file():
        raise UserError(f"--against {against}: there is no such file; give an eval/step_N.json")
    if len(sets) > 1:
        raise UserError("--against compares one set of problems; name one suite")
    read(against)
