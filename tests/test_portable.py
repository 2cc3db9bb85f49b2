"""Kernels in place of those that follow the processor: right, differentiable, and the same on emulated processors."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from genpipe import numerics
from genpipe.errors import BadInput, BadState
from genpipe.nn import portable
from tests import processors

pytestmark = pytest.mark.skipif(not portable.is_portable(), reason="this processor has no AVX2")


@pytest.fixture(autouse=True)
def _installed():
    portable.install()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", portable.FUNCTIONS)
def test_an_elementary_function_is_close_to_numpys(name, dtype):
    x = torch.cat([torch.rand(5000, dtype=dtype), 10 ** torch.linspace(-30, 30, 5000, dtype=dtype), torch.tensor([0, 1, 2, 1024, math.inf], dtype=dtype)])  # fmt: skip
    with np.errstate(divide="ignore"):  # the logarithm of 0
        right = getattr(np, name)(x.numpy().astype(np.longdouble)).astype(x.numpy().dtype)
    for found in (getattr(torch, name)(x), getattr(x.clone(), f"{name}_")(), getattr(torch, name)(x, out=torch.empty(0, dtype=dtype))):  # fmt: skip
        np.testing.assert_array_max_ulp(found.numpy(), right, maxulp=3 if name != "sqrt" else 1)
    assert torch.isnan(getattr(torch, name)(torch.tensor([-1.0], dtype=dtype))).all()
    assert getattr(torch, name)(torch.tensor([4])).dtype == torch.float32


def test_the_root_of_a_float32_is_the_nearest_number():
    x = torch.rand(100_000)
    for found in (x.sqrt(), x**0.5):
        assert torch.equal(found, torch.from_numpy(np.sqrt(x.numpy())))
    assert torch.equal(x**2, x * x)
    squares = torch.arange(3000, dtype=torch.float64)
    assert torch.equal(squares.square().sqrt(), squares)
    turned = torch.rand(30, 40).t()[::2]
    assert torch.equal(turned.sqrt(), turned.contiguous().sqrt())
    assert torch.equal(torch.tensor(9.0).sqrt(), torch.tensor(3.0))
    assert torch.equal(torch.imag(torch.tensor([-4j]).conj()).sqrt(), torch.tensor([2.0]))


@pytest.mark.parametrize("rows", [1, 2, 7, 200])
def test_large_products_are_those_of_float64_and_rows_do_not_depend_on_their_number(rows):
    a, b, bias = torch.randn(200, 150), torch.randn(300, 150), torch.randn(300)
    product = torch.nn.functional.linear(a, b, bias)
    right = torch.nn.functional.linear(a.double(), b.double(), bias.double())
    torch.testing.assert_close(product.double(), right, rtol=1e-5, atol=1e-4)
    if rows > 1:
        assert torch.equal(torch.nn.functional.linear(a[:rows].clone(), b, bias), product[:rows])
    assert torch.nn.functional.linear(a[:0], b, bias).shape == (0, 300)


@pytest.mark.parametrize(
    "cut", [lambda x: x[:, :150], lambda x: x[:, ::2], lambda x: x.reshape(-1, 2, 300)[:, 0, :150].repeat(2, 1), lambda x: x[:1, :150].expand(200, 150)]
)  # fmt: skip
def test_a_matrix_with_gaps_is_given_to_onednn_without_them(cut, monkeypatch):
    seen = []
    times = torch.ops.mkldnn._linear_pointwise
    pointwise = lambda a, b, *more: seen.extend([a, b]) or times(a, b, *more)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", pointwise)
    a, b = cut(torch.randn(200, 300)), torch.randn(150, 200)
    torch.testing.assert_close(a @ b, (a.double() @ b.double()).float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(b @ a, (b.double() @ a.double()).float(), rtol=1e-4, atol=1e-4)
    assert len(seen) == 4
    assert all(x.is_contiguous() or x.t().is_contiguous() for x in seen)


def test_products_and_roots_have_second_derivatives():
    a, b = (torch.rand(130, 130, requires_grad=True) for _ in "ab")
    (first,) = torch.autograd.grad((a @ b).sqrt().sum(), a, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), b)
    wide = [x.detach().double().requires_grad_() for x in (a, b)]
    (right,) = torch.autograd.grad((wide[0] @ wide[1]).sqrt().sum(), wide[0], create_graph=True)
    (right,) = torch.autograd.grad(right.square().sum(), wide[1])
    torch.testing.assert_close(second.double(), right, rtol=1e-3, atol=1e-4)


def test_an_operation_without_a_portable_kernel_is_refused():
    with pytest.raises(BadInput, match=r"torch\.atan differs from processor to processor"):
        torch.rand(3).atan()


@pytest.mark.parametrize("bias", [torch.ones(1).expand(150), torch.arange(300.0)[::2]])
def test_a_bias_may_have_any_strides(bias):
    a, b = torch.randn(64, 200), torch.randn(200, 150)
    torch.testing.assert_close(torch.addmm(bias, a, b), a @ b + bias, rtol=1e-4, atol=1e-4)


def test_all_forms_of_a_root_are_one():
    """Also the root of integers, into another type, and as a power, whose form in place has a kernel of its own."""
    whole = torch.arange(3000) ** 2
    x = whole.double()
    right = x.sqrt()
    for found in (x**0.5, x.clone().pow_(0.5), torch.pow(x, 0.5, out=torch.empty(0, dtype=torch.float64)), x.clone().sqrt_()):  # fmt: skip
        assert torch.equal(found, right)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(whole.sqrt(), right)
        assert torch.equal(whole**0.5, right)
    finally:
        torch.set_default_dtype(torch.float32)
    narrow = torch.empty(3000)
    assert torch.sqrt(x, out=narrow) is narrow
    assert torch.equal(narrow, right.float())
    assert torch.pow(x.float(), 3, out=narrow) is narrow
    with pytest.raises(RuntimeError, match="can't be cast"):
        whole.sqrt_()


def test_a_refused_operation_is_refused_in_all_forms():
    for call in (lambda: torch.tan(torch.ones(2), out=torch.empty(2)), lambda: torch.ones(2).acos_()):
        with pytest.raises(BadInput, match="differs from processor to processor"):
            call()


def test_settings_that_come_too_late_are_refused(monkeypatch):
    monkeypatch.setenv("MKL_CBWR", "AUTO")
    with pytest.raises(BadState, match="must be set before torch and numpy is imported, and MKL_CBWR"):
        numerics.use("portable")
    numerics.use("native")


def test_numpy_uses_no_kernel_above_avx2():
    show = "from numpy._core import _multiarray_umath as m; print([n for n in m.__cpu_dispatch__ if m.__cpu_features__[n]])"
    words = [sys.executable, "-c", f"from genpipe import numerics; numerics.use('portable'); {show}"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['X86_V3']"


@pytest.mark.parametrize("kind", ["native", "portable"])
def test_numpy_computes_alike_on_any_number_of_cores(kind):
    lines = [f"from genpipe import numerics; numerics.use({kind!r})", "import numpy as np", "from genpipe.evaluation.frechet import frechet_distance", "g = np.random.default_rng(0)", "print([frechet_distance(*g.normal(size=(2, 1000, 256)).astype(np.float32)) for _ in range(3)])"]  # fmt: skip
    words = [sys.executable, "-c", "\n".join(lines)]
    found = {
        subprocess.run(words, env={**os.environ, "OPENBLAS_NUM_THREADS": cores}, capture_output=True, text=True, check=True).stdout
        for cores in "12"
    }  # fmt: skip
    assert len(found) == 1


needs_emulator = pytest.mark.skipif(not processors.is_emulated(), reason=processors.REASON)


# linear layers, convolutions, gated convolutions over tokens, recurrent cells
STRUCTURES = ("nice", "ogan", "couplet", "translator")


@pytest.mark.timeout(1800)
@needs_emulator
def test_a_recipe_of_each_structure_ends_on_the_same_bits_on_an_amd():
    here, there = (
        processors.on(name, ["--only-trainings", *STRUCTURES], 1800) for name in (processors.HERE, "AMD EPYC")
    )
    assert len(here) == 1 + len(STRUCTURES)
    assert here == there


@pytest.mark.slow
@pytest.mark.timeout(3600)
@needs_emulator
@pytest.mark.parametrize("processor", ["Intel Haswell", "AMD EPYC"])
def test_every_operation_that_a_recipe_uses_gives_the_same_bits(processor, tmp_path):
    processors.on(processors.HERE, ["--note", str(tmp_path / "notes")], 3600)
    play = ["--play", str(tmp_path / "notes")]
    here, there = (processors.on(name, play, 3600) for name in (processors.HERE, processor))
    assert len(here) > 1000
    assert [a for a, b in zip(here, there, strict=True) if a != b] == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
@needs_emulator
@pytest.mark.parametrize("processor", processors.PROCESSORS)
def test_every_recipe_ends_on_the_same_bits(processor):
    here, there = (processors.on(name, [], 7200) for name in (processors.HERE, processor))
    assert len(here) > len(processors.NAMES)
    assert [a for a, b in zip(here, there, strict=True) if a != b] == []
