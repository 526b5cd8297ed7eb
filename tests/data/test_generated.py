"""Problems of reasoning-gym: the same for a seed, held out for good, and refused in one sentence."""

import json

import pytest
import reasoning_gym

from igrpo_mcore.config.schema import Config, DataConfig, EvalConfig, ModelConfig
from igrpo_mcore.data.generated import HELD_OUT_SHARE, generated
from igrpo_mcore.data.problems import held_out_problems, load_problems
from igrpo_mcore.errors import UserError

ONE_DIGIT = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}


def data(path: str = "reasoning_gym:products,chain_sum", **options) -> DataConfig:
    both = {"products": ONE_DIGIT, "chain_sum": ONE_DIGIT}
    return DataConfig(path=path, **({"size": 300, "options": both} | options))


def test_the_same_seed_gives_the_same_problems_and_another_others():
    assert load_problems(data()) == load_problems(data())
    assert load_problems(data()) != load_problems(data(seed=1))


def test_problems_are_the_packages_own_and_its_verifier_agrees():
    problems = load_problems(data())
    tasks = set()
    for problem in problems:
        entry = json.loads(problem.entry)
        task = entry["metadata"]["source_dataset"]
        tasks.add(task)
        assert (problem.problem, problem.answer) == (entry["question"], entry["answer"])
        assert reasoning_gym.get_score_answer_fn(task)(problem.answer, entry) == 1.0
    assert tasks == {"products", "chain_sum"}


def test_no_seed_trains_on_a_held_out_text():
    held_out = {p.problem for seed in range(4) for p in generated(data(seed=seed), held_out=True)}
    trained = {p.problem for seed in range(4) for p in generated(data(seed=seed), held_out=False)}
    assert not held_out & trained
    assert 0.5 < HELD_OUT_SHARE * len(held_out) / len(held_out | trained) < 2


def test_each_text_stands_once():
    texts = [p.problem for p in load_problems(data())]
    assert len(set(texts)) == len(texts)


def test_what_is_held_out_for_eval(tmp_path):
    config = Config(model=ModelConfig(path="m"), data=data(), eval=EvalConfig(problems=7))
    assert held_out_problems(config) == generated(data(), held_out=True)[:7]
    file = tmp_path / "test.jsonl"
    file.write_text('{"problem": "1+1", "answer": "2"}\n{"problem": "1+2", "answer": "3"}\n')
    config.eval.path = str(file)
    assert [p.answer for p in held_out_problems(config)] == ["2", "3"]
    config.eval.path, config.data.path = None, str(file)
    with pytest.raises(UserError, match=r"set eval\.path"):
        held_out_problems(config)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"path": "reasoning_gym:product", "options": {}}, "did you mean products"),
        ({"path": "reasoning_gym:", "options": {}}, "no task ''"),
        ({"path": "reasoning_gym:products", "options": {"product": {}}}, "options for product"),
        (
            {"path": "reasoning_gym:products", "options": {"products": {"digits": 1}}},
            "no option 'digits'; it has",
        ),
        ({"path": "reasoning_gym:products", "options": {"products": {"min_terms": -1}}}, "min_terms must be"),
        ({"path": "reasoning_gym:products", "options": {"products": {"max_digits": "x"}}}, "is refused"),
        (
            {"path": "reasoning_gym:products", "options": {"products": ONE_DIGIT}, "size": 1},
            "raise data.size",
        ),
    ],
)
def test_what_cannot_be_generated(changes, said):
    with pytest.raises(UserError) as caught:
        generated(data(**changes), held_out=True)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
