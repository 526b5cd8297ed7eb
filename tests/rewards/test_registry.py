"""Names of rewards."""

import pytest

from igrpo_mcore.errors import UserError
from igrpo_mcore.rewards.format import FormatReward
from igrpo_mcore.rewards.registry import REGISTERED, check_name, load_reward
from tests.rewards.user_rewards import by_text


def test_names_and_functions_load() -> None:
    assert isinstance(load_reward("format"), FormatReward)
    assert load_reward("tests.rewards.user_rewards:by_text") is by_text
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
