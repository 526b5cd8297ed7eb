"""The CPU path's products: by oneDNN where no gradient is kept, equal to fp64's."""

import pytest
import torch

from igrpo_mcore import device


@pytest.mark.parametrize("shape", [(300, 96, 160), (1, 7, 5), (33, 1, 2)])
def test_products_equal_fp64(shape):
    rows, inner, columns = shape
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(rows, inner, generator=generator), torch.randn(columns, inner, generator=generator)
    for left, right in ((a, b.t()), (a.t(), a), (a[:, None], b.t())):
        product = device._onednn_matmul(left, right)
        assert product is not None
        torch.testing.assert_close(product.double(), left.double() @ right.double(), rtol=1e-5, atol=1e-5)


def test_the_mode_takes_what_has_no_gradient_and_leaves_the_rest(monkeypatch):
    taken = []
    onednn = device._onednn_matmul

    def seen(a, b):
        product = onednn(a, b)
        taken.append(product is not None)
        return product

    monkeypatch.setattr(device, "_onednn_matmul", seen)
    a, b = torch.randn(4, 3), torch.randn(3, 5, requires_grad=True)
    with device._MegatronOnCpu():
        with torch.no_grad():
            torch.matmul(a, b)
        loss = a.matmul(b).sum()
        torch.matmul(a.double(), b.double())
        torch.matmul(a[:0], b.detach())
    loss.backward()
    assert taken == [True, False, False, False]
    torch.testing.assert_close(b.grad, a.sum(0)[:, None].expand(3, 5))
