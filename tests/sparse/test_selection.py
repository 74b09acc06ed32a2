"""What is kept: against plain loops, and what is drawn keeps the mean."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from retroprop.errors import RetropropError
from retroprop.sparse import Rule
from retroprop.sparse.selection import PER, SELECT, kept_indices, multipliers, probabilities, vcas_units
from tests.sparse import reference

sizes = arrays("float64", st.integers(1, 12), elements=st.floats(0, 10).map(lambda v: round(v, 3)))


@given(sizes, st.floats(0.05, 1), st.integers(0, 2**20), st.sampled_from(SELECT))
@settings(max_examples=200, deadline=None)
def test_multipliers_are_those_of_plain_loops(size, keep: float, seed: int, select: str):
    rule = Rule(keep, "batch", select)  # type: ignore[arg-type]
    row = torch.from_numpy(size) + torch.rand(len(size), generator=torch.Generator().manual_seed(seed)) * 1e-3
    noise = torch.rand(len(size), generator=torch.Generator().manual_seed(seed + 1)).double()
    found = multipliers(row.unsqueeze(0), rule, noise.unsqueeze(0))[0]
    expected = reference.factors(row.tolist(), rule, noise.tolist())
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


@given(sizes, st.integers(1, 12), st.sampled_from(["magnitude", "random", "importance"]), st.floats(0, 0.999))
@settings(max_examples=100, deadline=None)
def test_indices_and_multipliers_say_the_same(size, keep: int, select: str, offset: float):
    rule, row = Rule(keep, "batch", select), torch.from_numpy(size).unsqueeze(0)  # type: ignore[arg-type]
    noise = torch.rand(row.shape, generator=torch.Generator().manual_seed(0)).double()
    noise[0, 0] = offset
    units, factor = kept_indices(row, rule, noise)
    assert units.shape == (1, rule.k(row.shape[1]))
    assert len(set(units[0].tolist())) == units.shape[1]
    spread = torch.zeros_like(row).scatter(
        1, units, torch.ones_like(row[:, : units.shape[1]]) if factor is None else factor
    )
    assert torch.equal(spread, multipliers(row, rule, noise))


@given(sizes, st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_probabilities_are_shares_of_k(size, k: int):
    row = torch.from_numpy(size)
    found = probabilities(row, k)
    k = min(k, int((row > 0).sum()))
    assert ((found >= 0) & (found <= 1)).all()
    assert abs(float(found.sum()) - k) < 1e-9
    torch.testing.assert_close(found, torch.tensor(reference.chances(size.tolist(), k), dtype=torch.float64))


@pytest.mark.parametrize("per", PER)
@pytest.mark.parametrize("select", ["importance", "variance"])
@pytest.mark.parametrize("block", [1, 2])
def test_the_mean_over_draws_is_the_dense_gradient(select: str, per: str, block: int):
    """Exactly: the offset of the draw runs through a grid, whose error is at most one step a unit."""
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(5, 8, dtype=torch.float64, generator=generator) * torch.arange(1, 9)
    rule = Rule(0.5, per, select, block)  # type: ignore[arg-type]
    draws = 4000
    total = torch.zeros_like(gradient)
    for i in range(draws):
        noise = torch.full_like(gradient, (i + 0.5) / draws)
        total += kept_of(gradient, rule, noise)
    assert float((total / draws - gradient).abs().max()) < 20 / draws * float(gradient.abs().max())
    assert not torch.allclose(kept_of(gradient, rule, torch.full_like(gradient, 0.3)), gradient)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("per", PER)
def test_the_mean_is_kept_in_half_precision_too(per: str, dtype: torch.dtype):
    """Of a wide layer, where sums of shares in half precision would lose most units."""
    gradient = torch.rand(2, 1024, generator=torch.Generator().manual_seed(0)).to(dtype)
    rule, draws = Rule(0.25, per, "importance"), 2000  # type: ignore[arg-type]
    total = torch.zeros(2, 1024)
    for i in range(draws):
        total += kept_of(gradient, rule, torch.full((2, 1024), (i + 0.5) / draws)).float()
    small = gradient.float() < 0.1
    assert float((total / draws)[small].sum() / gradient.float()[small].sum()) == pytest.approx(1, abs=0.01)


def kept_of(gradient: Tensor, rule: Rule, noise: Tensor) -> Tensor:
    """The gradient `(case, unit)` that the rule keeps."""
    size = rule.size(gradient, [0] if rule.per == "batch" else []).reshape(-1, gradient.shape[1])
    return gradient * multipliers(size, rule, noise[: len(size)])


def test_random_units_are_not_reweighted_and_every_unit_has_its_turn():
    rule, size = Rule(0.25, "batch", "random"), torch.arange(8.0).unsqueeze(0)
    generator = torch.Generator().manual_seed(0)
    mean = torch.stack(
        [multipliers(size, rule, torch.rand(1, 8, generator=generator)) for _ in range(4000)]
    ).mean(0)
    assert float((mean - 0.25).abs().max()) < 0.03


@given(sizes, st.floats(0.01, 1))
@settings(max_examples=100, deadline=None)
def test_the_number_of_variance_is_the_smallest_that_holds_the_share(size, share: float):
    row = torch.from_numpy(size)
    n, ordered = int(vcas_units(row, share)), row.sort(descending=True).values
    total = float(ordered.sum())
    assert float(ordered[:n].sum()) >= share * total - 1e-9
    assert n == 1 or float(ordered[: n - 1].sum()) < share * total + 1e-9


@pytest.mark.parametrize("select", SELECT)
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_an_overflow_is_not_hidden(select: str, value: float):
    """A loss scaler has to see it."""
    gradient = torch.ones(4, 8)
    gradient[1, 3] = value
    if select == "random":  # a unit that is left out is left out, whatever it holds
        return
    found = kept_of(gradient, Rule(0.5, "batch", select), torch.full_like(gradient, 0.4))  # type: ignore[arg-type]
    assert not found.isfinite().all()


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"keep": 0}, "keep=0 was given; expected a share 0 < keep <= 1"),
        ({"keep": 0.0}, "keep=0.0 was given"),
        ({"keep": 1.5}, "keep=1.5 was given"),
        ({"keep": -3}, "keep=-3 was given"),
        ({"keep": True}, "keep=True was given"),
        ({"keep": "half"}, "keep='half' was given"),
        ({"keep": float("nan")}, "keep=nan was given"),
        ({"per": "row"}, "per"),
        ({"select": "magnitud"}, "Did you mean 'magnitude'"),
        ({"select": "variance", "keep": 3}, "expected a share"),
        ({"block": 0}, "block=0 was given"),
    ],
)
def test_bad_rules_are_refused(given_: dict[str, object], words: str):
    with pytest.raises(RetropropError) as error:
        Rule(**given_)  # type: ignore[arg-type]
    assert words in str(error.value)


def test_blocks_must_divide_the_units():
    with pytest.raises(RetropropError, match="block=3 was given for a layer of 8 units; expected a divisor"):
        Rule(0.5, block=3).k(8)
