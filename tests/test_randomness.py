"""The streams: pinned, independent, uniform, and without effect on anyone else's generator."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from retroprop.randomness import _philox, derived_seed, permutation, uniforms


def test_values_are_pinned():
    """A change of these numbers changes every start, split, order and mask ever stored."""
    scaled = (uniforms((4,), 7, "start", "hidden.0.linear.weight", 3).double() * 2**24).long()
    assert scaled.tolist() == [399620, 13160812, 1626808, 10856109]
    assert permutation(8, 7, "order", step=2).tolist() == [1, 3, 6, 5, 4, 0, 7, 2]
    assert derived_seed(7, "he_init", "hidden.0") == 5891415153593629373
    assert derived_seed("7", "he_init", "hidden.0") == 5891415153593629373


def test_a_draw_does_not_depend_on_earlier_draws():
    first = uniforms((5, 3), 1, "a")
    uniforms((100,), 1, "b")
    permutation(10, 2, "a")
    torch.rand(3)
    assert torch.equal(uniforms((5, 3), 1, "a"), first)


def test_a_longer_draw_begins_with_the_shorter_one():
    assert torch.equal(uniforms((7,), 1, "a"), uniforms((100,), 1, "a")[:7])


@pytest.mark.parametrize(
    "other",
    [(2, "a", "l", 0), (1, "b", "l", 0), (1, "a", "m", 0), (1, "a", "l", 1), (1, "al", "", 0)],
    ids=["seed", "stream", "layer", "step", "names run together"],
)
def test_every_part_of_the_key_counts(other: tuple[int, str, str, int]):
    one, two = uniforms((500,), 1, "a", "l", 0), uniforms((500,), *other)
    assert not bool((one == two).all())
    correlation = np.corrcoef(one.numpy(), two.numpy())[0, 1]
    assert abs(correlation) < 4 / 500**0.5, f"correlation {correlation}"


def test_range_and_grid():
    drawn = uniforms((100_000,), 0, "range")
    assert drawn.dtype == torch.float32
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) < 1
    assert torch.equal(drawn * 2**24, (drawn * 2**24).round())


@pytest.mark.parametrize("seed", [0, 1, "two"])
def test_uniformity(seed: int | str):
    drawn = uniforms((64_000,), seed, "uniformity").numpy()
    p = stats.chisquare(np.histogram(drawn, 64, (0, 1))[0]).pvalue
    assert p > 1e-4, f"chi-square p = {p}"
    pairs = np.histogram2d(drawn[::2], drawn[1::2], 16, ((0, 1), (0, 1)))[0]
    p = stats.chisquare(pairs.ravel()).pvalue
    assert p > 1e-4, f"chi-square of neighbours p = {p}"


def test_steps_do_not_overlap():
    """A run of four numbers at one step turns up at no place of the next ones."""
    drawn = [uniforms((2000,), 0, "steps", step=step).numpy() for step in range(4)]
    runs = [set(map(tuple, np.lib.stride_tricks.sliding_window_view(d, 4))) for d in drawn]
    assert len(set.union(*runs)) == sum(map(len, runs))


def test_shapes():
    assert uniforms((), 0, "s").shape == ()
    assert uniforms((0,), 0, "s").shape == (0,)
    assert uniforms((1,), 0, "s").shape == (1,)
    assert uniforms((3, 5), 0, "s").flatten().equal(uniforms((15,), 0, "s"))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(n=st.integers(1, 300), seed=st.integers() | st.text(max_size=5), step=st.integers(0, 10**6))
def test_permutation_is_a_permutation(n: int, seed: int | str, step: int):
    drawn = permutation(n, seed, "order", step=step)
    assert drawn.dtype == torch.int64
    assert drawn.sort().values.tolist() == list(range(n))


def test_permutations_are_uniform():
    counts = np.zeros((5, 5))
    for seed in range(2000):
        counts[np.arange(5), permutation(5, seed, "order").numpy()] += 1
    p = stats.chisquare(counts.ravel()).pvalue
    assert p > 1e-4, f"chi-square p = {p}"


@settings(max_examples=50, deadline=None, derandomize=True)
@given(names=st.lists(st.integers() | st.text(max_size=5), min_size=1, max_size=4))
def test_derived_seeds_fit_a_torch_generator(names: list[int | str]):
    seed = derived_seed(*names)
    assert 0 <= seed < 2**63
    torch.Generator().manual_seed(seed)


def test_global_generators_are_left_alone():
    before, numpy_before = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    uniforms((10,), 0, "a")
    permutation(10, 0, "a")
    derived_seed(0, "a")
    assert torch.equal(torch.get_rng_state(), before)
    after = np.random.get_state()  # noqa: NPY002
    assert after[0] == numpy_before[0]
    assert np.array_equal(after[1], numpy_before[1])
    assert after[2:] == numpy_before[2:]


@given(
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(0, 2**40),
    st.one_of(st.integers(), st.text(max_size=5)),
)
def test_skipping_gives_the_rest_of_the_sequence(count: int, skip: int, step: int, seed: int | str):
    whole = uniforms((skip + count,), seed, "s", "layer", step)
    assert torch.equal(uniforms((count,), seed, "s", "layer", step, skip=skip), whole[skip:])


@given(st.integers(0, 40), st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 2**128 - 1))
def test_the_device_draws_the_words_of_numpy(blocks: int, first: int, step: int, key: int):
    """On the CPU here, where the arithmetic is the same."""
    halves = _philox(blocks, key, (first, step), torch.device("cpu"))
    generator = np.random.Philox(key=key, counter=[first, 0, step, 0])
    words = np.atleast_1d(generator.random_raw(4 * blocks)).view(np.uint32)
    assert np.array_equal(halves.numpy(), words.astype(np.int64))


@pytest.mark.cuda
def test_a_cuda_device_draws_the_same():
    here = uniforms((7, 5), 3, "dropout", "layer", 2, skip=11)
    there = uniforms((7, 5), 3, "dropout", "layer", 2, skip=11, device=torch.device("cuda"))
    assert torch.equal(there.cpu(), here)
