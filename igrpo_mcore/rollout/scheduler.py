"""One engine's rollouts: samples go in, scores come back, problems go on to their next stage.

``handover`` lets each problem go on by itself; ``barrier`` lets none begin a stage before all have ended
the one before. Whatever the schedule, a sample's tokens depend on its prompt and seed alone.

Every rank of an engine runs this with the same calls in the same order, as the engine asks. Only the first
rank has rewards, so scores are agreed by one broadcast; when, every rank knows by itself: a completion
that ended at decoding step s has its score used at step s + ``score_steps``, where the engine waits for it
if it must (``eager``: whenever it is there, by a broadcast each step).
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from igrpo_mcore.config.schema import RolloutConfig, Schedule
from igrpo_mcore.rollout.course import Course, Renderer
from igrpo_mcore.rollout.engine import RolloutEngine
from igrpo_mcore.rollout.selection import choose
from igrpo_mcore.rollout.stage_stats import StageClock, StageStats
from igrpo_mcore.run.journal import Choice, NoJournal
from igrpo_mcore.types import Completion, Group, Problem, SampleKey, Score, StageGroup


class Scorer(Protocol):
    """Completions to rewards, in the background; the same calls on every rank of an engine."""

    def submit(self, key: SampleKey, problem: Problem, completion: Completion) -> None:
        """Begin to score."""
        ...

    def advance(self) -> None:
        """Called often: whatever scores is kept busy."""
        ...

    def take(self, keys: Sequence[SampleKey]) -> list[Score]:
        """The scores of ``keys``, waited for."""
        ...

    def ready(self) -> list[tuple[SampleKey, Score]]:
        """The scores that are there by now and were not taken."""
        ...

    def drop(self, keys: Sequence[SampleKey]) -> None:
        """These scores will not be asked for."""
        ...


class Scheduler:
    """Runs courses on one engine. ``greatest`` is the reward at which drafts exit early."""

    def __init__(
        self,
        engine: RolloutEngine,
        scorer: Scorer,
        renderer: Renderer,
        rollout: RolloutConfig,
        *,
        greatest: float | None = None,
    ) -> None:
        self._engine, self._scorer, self._renderer = engine, scorer, renderer
        self._options = rollout
        self._greatest = greatest if rollout.draft_early_exit else None

    def run(self, courses: Sequence[Course], journal: NoJournal | None = None) -> dict[str, StageStats]:
        """Take every course to its goal; what that took, by stage. What is in ``journal`` is not sampled."""
        self._journal = journal or NoJournal()
        self._clock, self._steps = StageClock(), 0
        self._courses = {(course.step, course.position): course for course in courses}
        self._due: dict[SampleKey, int] = {}
        self._known: dict[SampleKey, Score] = {}
        for course in courses:
            if not course.at_goal:
                self._begin(course)
        while self._engine.busy or self._due:
            if self._engine.busy:
                self._decode()
            self._use_scores()
        assert all(course.at_goal for course in courses)
        return self._clock.stats()

    def _begin(self, course: Course) -> None:
        """Submit the course's next stage, but for what the journal has of it."""
        prompt = course.begin_stage(self._renderer)
        kept = self._journal.choice(course.step, course.stage.name, course.position)
        if kept is not None:
            self._recall(course, kept.group)
            self._end(course, kept.sample)
            return
        for key in course.samples():
            completion = self._journal.sampled(key)
            if completion is not None:
                self._sampled(key, completion, self._journal.score(key))
            else:
                sampling, seed = course.stage.sampling, course.stage.seed + key.sample
                self._engine.submit(key, prompt.token_ids, sampling, seed)
                self._clock.submitted(key.stage)

    def _recall(self, course: Course, members: Sequence[int]) -> None:
        for index in members:
            key = course.key(index)
            completion, score = self._journal.sampled(key), self._journal.score(key)
            assert completion is not None
            assert score is not None
            course.completions[index], course.scores[index] = completion, score

    def _decode(self) -> None:
        running = self._clock.running
        start = time.perf_counter()
        ended = self._engine.step()
        self._clock.decoded(time.perf_counter() - start, running)
        self._steps += 1
        self._scorer.advance()
        for key, completion in ended:
            self._clock.ended(key.stage, len(completion.token_ids))
            self._journal.keep_sampled(key, completion)
            self._sampled(key, completion)

    def _sampled(self, key: SampleKey, completion: Completion, score: Score | None = None) -> None:
        course = self._courses[key.step, key.position]
        course.completions[key.sample] = completion
        if score is None:
            self._scorer.submit(key, course.problem, completion)
        else:
            self._known[key] = score
        self._due[key] = self._steps + self._options.score_steps

    def _use_scores(self) -> None:
        """Give courses the scores that are due, then let them go on."""
        touched: dict[int, Course] = {}
        for key, score in self._scores_to_use():
            del self._due[key]
            course = self._courses[key.step, key.position]
            course.scores[key.sample] = score
            touched[id(course)] = course
            self._journal.keep_score(key, score)
        for course in touched.values():
            if course.stage_scored or self._exits(course):
                self._stage_done(course)

    def _scores_to_use(self) -> list[tuple[SampleKey, Score]]:
        if not self._due:
            return []
        if self._options.eager and self._engine.busy:
            return self._scorer.ready()
        if not self._engine.busy:  # nothing else to do: on to the next that is due
            self._steps = max(self._steps, min(self._due.values()))
        keys = [key for key, due in self._due.items() if due <= self._steps]
        asked = [key for key in keys if key not in self._known]
        if asked:
            start = time.perf_counter()
            self._known |= zip(asked, self._scorer.take(asked), strict=True)
            self._clock.waited(time.perf_counter() - start, (key.stage for key in asked))
        return [(key, self._known.pop(key)) for key in keys]

    def _exits(self, course: Course) -> bool:
        """Whether a draft is as good as any can be, so that the others need not be sampled."""
        conditions_another = len(course.found) + 1 < len(course.stages)
        if course.whole or self._greatest is None or not conditions_another:
            return False
        return max(score.total for score in course.scores.values()) >= self._greatest

    def _stage_done(self, course: Course) -> None:
        """Choose, and begin what may begin now."""
        if not course.stage_scored:
            unfinished = [key for key in course.samples() if key.sample not in course.scores]
            decoding = [key for key in unfinished if key.sample not in course.completions]
            self._engine.abort(decoding)
            for key in decoding:
                self._clock.ended(key.stage)
            scoring = [key for key in unfinished if key.sample in course.completions]
            self._scorer.drop(scoring)
            for key in scoring:
                del self._due[key]
        self._end(course)

    def _end(self, course: Course, chosen: int | None = None) -> None:
        """The stage's group is what was scored; ``chosen`` (a sample's index) is chosen here if not given."""
        members = sorted(course.scores)
        assert course.prompt is not None
        group = Group(
            course.prompt,
            tuple(course.completions[index] for index in members),
            tuple(course.scores[index] for index in members),
        )
        stage = course.stage
        if len(course.found) + 1 == len(course.stages):
            course.end_stage(StageGroup(stage.name, group))
            return
        if chosen is None:
            seed = course.choice_seeds[len(course.found)]
            chosen = members[choose(self._options.selection, group, seed)]
            self._journal.keep_choice(
                course.step, stage.name, course.position, Choice(chosen, tuple(members))
            )
        exempt = self._greatest is None or course.whole
        censored = None if exempt else stage.sampling.num_samples - len(members)
        course.chosen = StageGroup(stage.name, group, members.index(chosen), censored=censored)
        waiting = [c for c in self._courses.values() if (c.step, c.source) == (course.step, course.position)]
        for other in dict.fromkeys([course.position, *(c.position for c in waiting)]):
            self._hand_over(self._courses[course.step, other])

    def _hand_over(self, course: Course) -> None:
        """Give the course its next prompt, once its own stage and that of its source have their choices."""
        own, source, place = course.chosen, self._courses[course.step, course.source], len(course.found)
        theirs = source.found[place] if len(source.found) > place else source.chosen
        if own is None or theirs is None:
            return
        prompt, overflowed = self._renderer.second(course.problem, theirs.choice[0])
        foreign = None if source is course else theirs.choice
        course.chosen = None
        course.end_stage(replace(own, overflowed=overflowed, foreign=foreign), prompt)
        if not course.at_goal:
            self._go_on(course)

    def _go_on(self, course: Course) -> None:
        if self._options.schedule != Schedule.barrier:
            self._begin(course)
            return
        if all(len(other.found) == len(course.found) for other in self._courses.values()):
            for other in self._courses.values():
                self._begin(other)
