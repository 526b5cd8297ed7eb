"""Names of rewards."""

import pytest

from igrpo_mcore.errors import UserError
from igrpo_mcore.rewards.format import format_reward
from igrpo_mcore.rewards.options import RewardOptions
from igrpo_mcore.rewards.registry import REGISTERED, check_name, load_reward
from igrpo_mcore.types import Completion, Problem


def test_names_and_functions_load() -> None:
    assert load_reward("format") is format_reward
    options = RewardOptions(opens_thinking=True)
    with_options = load_reward("format", options)
    text = Completion((), (), "a</think><answer>5</answer>", False)
    assert with_options(Problem("1", "q", "5"), text) == 1.0
    assert load_reward("format")(Problem("1", "q", "5"), text) == 0.0
    assert load_reward("igrpo_mcore.rewards.format:format_reward") is format_reward
    for name in REGISTERED:
        assert callable(load_reward(name))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("acuracy", "did you mean 'accuracy'?"),
        ("zzz", "registered are accuracy, format"),
        ("my module:f", "module:function"),
        ("module:", "module:function"),
    ],
)
def test_an_unknown_name_is_refused(name: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        check_name(name)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_module_at_all:f", "importing no_such_module_at_all failed"),
        ("tests.rewards.broken_module:f", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("tests.rewards.user_rewards:lenght", "did you mean 'length'?"),
    ],
)
def test_a_function_that_cannot_be_loaded(name: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load_reward(name)
    assert said in str(caught.value)
