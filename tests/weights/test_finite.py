"""What a push refuses to send."""

import pytest
import torch

from igrpo_mcore.errors import UserError
from igrpo_mcore.weights.finite import check_finite, first_not_finite

LARGEST = torch.finfo(torch.bfloat16).max


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_value_among_many_is_found(value, dtype):
    tensors = {name: torch.randn(37, 19).to(dtype) for name in "abc"}
    tensors["large"] = torch.full((3000, 100), LARGEST, dtype=dtype)  # finite, though its sum is not
    tensors["none"] = torch.empty(0, 5, dtype=dtype)
    assert first_not_finite(tensors) is None
    tensors["b"][36, 18] = value
    assert first_not_finite(tensors) == "b"
    with pytest.raises(
        UserError, match="the policy's b holds NaN or infinite values, so no weights are pushed"
    ):
        check_finite(tensors)


def test_a_mixture_of_types_and_no_tensors_are_fine():
    assert first_not_finite({}) is None
    assert first_not_finite({"a": torch.ones(2), "b": torch.ones(2, dtype=torch.bfloat16)}) is None
