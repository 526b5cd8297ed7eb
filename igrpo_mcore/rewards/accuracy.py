"""1 where a completion's final value equals the reference answer; docs/rewards.md has the whole rule."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from igrpo_mcore.config.reward_choices import AccuracyFrom
from igrpo_mcore.rewards.equality import equal_texts, equal_values, equals_expression
from igrpo_mcore.rewards.latex import canonical, spell, tokens
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.rewards.places import answer_texts, boxed
from igrpo_mcore.rewards.restated import is_restated, repeats_problem
from igrpo_mcore.rewards.statement import Statement, read_statement, read_statements
from igrpo_mcore.rewards.value import MAX_CHARACTERS, Value
from igrpo_mcore.types import Completion, Problem

MAX_REFERENCE = 20_000
DEFAULT = RewardOptions()


@dataclass(frozen=True)
class FinalAnswer:
    """The answer that a text commits itself to.

    ``readings`` are the final values it can be read as, none for an answer in words; ``spoken`` is how
    it is written, canonical.
    """

    readings: tuple[Value, ...]
    spoken: tuple[str, ...]


def accuracy_reward(problem: Problem, completion: Completion, *, options: RewardOptions = DEFAULT) -> float:
    """1 where the final value in the asked place equals ``problem.answer``, 0 otherwise.

    The reference is the last ``\\boxed{}`` of ``problem.answer`` where it has one, what follows the last
    ``####``, or all of it.
    """
    answer = final_answer_of(completion.text, options, problem=problem)
    return float(answer is not None and _right(answer, problem))


def final_answer_of(
    text: str, options: RewardOptions, *, problem: Problem | None = None
) -> FinalAnswer | None:
    """The final answer of a text, or None: no answer in the place, no final value, or several.

    With ``problem``, what only restates it is no answer, and what is written as its reference is one.
    """
    places = answer_texts(text, options)
    read = [_read_place(content, options.accuracy_from, problem) for content in places]
    return _agreed(read) if read else None


def same_answer(a_text: str, b_text: str, options: RewardOptions) -> bool:
    """Whether two texts have equal final answers; false where either has none."""
    a, b = final_answer_of(a_text, options), final_answer_of(b_text, options)
    return a is not None and b is not None and _same(a, b)


def same_as_written(a: FinalAnswer | None, b: FinalAnswer | None) -> bool:
    """The same numbers or the same words, without asking whether two expressions are equal: cheap, and a
    lower bound of ``same_answer``."""
    if a is None or b is None:
        return False
    numbers = [{value.scalar.value for value in one.readings if value.scalar} for one in (a, b)]
    return bool(numbers[0] & numbers[1] or set(a.spoken) & set(b.spoken))


def reads_as_value(answer: str) -> bool:
    """Whether a reference holds a final value; otherwise it is its own measure, by its words or signs."""
    return bool(_reference(answer).readings)


def _same(a: FinalAnswer, b: FinalAnswer) -> bool:
    if a.readings and b.readings:
        return any(equal_values(x, y) and equal_values(y, x) for x in a.readings for y in b.readings)
    return bool(set(a.spoken) & set(b.spoken))


def _right(answer: FinalAnswer, problem: Problem) -> bool:
    text = _reference_text(problem.answer)
    reference = _reference(problem.answer)
    if canonical(text) in answer.spoken:
        return True
    given = [value for value in answer.readings if not is_restated(value, problem.problem, text)]
    if not reference.readings:
        return any(equals_expression(text, value) for value in given)
    return any(equal_values(wanted, value) for wanted in reference.readings for value in given)


def _reference_text(answer: str) -> str:
    """The part of a reference that is the answer."""
    answer = answer[-MAX_REFERENCE:]
    found = boxed(answer)
    return found[-1] if found else answer.rpartition("####")[2].strip()


@lru_cache(maxsize=1024)
def _reference(answer: str) -> Statement:
    """The reference's readings; none where it is a word or an expression, which is then its own measure."""
    return read_statement(_reference_text(answer))


def _read_place(content: str, where: AccuracyFrom, problem: Problem | None) -> FinalAnswer | None:
    """The one answer of a place, whose whole content is ``content``."""
    if problem is not None and _written_as_reference(content, _reference_text(problem.answer)):
        spoken = (canonical(_reference_text(problem.answer)),)
        return FinalAnswer(read_statement(content).readings, spoken)
    boxes = boxed(content)
    if boxes:
        return _agreed([_read_place(inner, where, problem) for inner in boxes])
    statements = read_statements(content)
    if problem is not None:
        statements = [_unless_restated(statement, problem) for statement in statements]
    mathematical = [statement for statement in statements if statement.has_math or statement.readings]
    if not mathematical:
        return FinalAnswer((), statements[-1].spoken) if statements else None
    if not mathematical[-1].readings:
        return None  # what is said last with numbers is no final value
    answers = [FinalAnswer(s.readings, s.spoken) for s in mathematical if s.readings]
    return answers[-1] if where is AccuracyFrom.anywhere else _agreed(answers)


def _agreed(answers: Sequence[FinalAnswer | None]) -> FinalAnswer | None:
    """The last of several answers where all are the same."""
    last = answers[-1]
    if last is None or any(answer is None or not _same(answer, last) for answer in answers[:-1]):
        return None
    return last


def _written_as_reference(content: str, reference: str) -> bool:
    """The same text, or the same signs in another order where the reference is an expression itself."""
    if len(content) > MAX_CHARACTERS:
        return content.strip() == reference
    if canonical(content) == canonical(reference):
        return bool(canonical(reference))
    if read_statement(reference).readings or len(reference) > MAX_CHARACTERS:
        return False
    same_signs = sorted(tokens(spell(content), thousands=True)) == sorted(
        tokens(spell(reference), thousands=True)
    )
    return same_signs and equal_texts(spell(reference), spell(content))


def _unless_restated(statement: Statement, problem: Problem) -> Statement:
    """Without readings where the statement is a part of the problem's text and more than one number."""
    if statement.is_literal or not repeats_problem(statement.text, problem.problem):
        return statement
    return replace(statement, readings=(), spoken=())
