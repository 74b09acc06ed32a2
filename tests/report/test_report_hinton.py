"""Hinton diagrams: the area of a square is the size of its weight."""

import re

import numpy as np
import pytest

from retroprop.report.figures.hinton import SQUARES, hinton, units_shown


def squares(svg: str, colour: str) -> list[float]:
    path = re.search(rf'fill="{colour}" d="([^"]*)"', svg)[1]
    return [float(edge) for edge in re.findall(r"h([\d.]+)v", path)]


def test_area_is_the_size_of_the_weight():
    svg = hinton(np.array([[1.0, -0.25, 0.0, 0.5]]), 1.0, name="h", title="t")
    white, black = squares(svg, "#ffffff"), squares(svg, "#000000")
    assert [edge**2 for edge in white] == pytest.approx([1.0, 0.5], abs=0.01)
    assert [edge**2 for edge in black] == pytest.approx([0.25])


def test_one_largest_weight_is_shared():
    svg = hinton(np.full((1, 4), 0.5), 2.0, name="h", title="t")
    assert [edge**2 for edge in squares(svg, "#ffffff")] == pytest.approx([0.25] * 4)


def test_weights_of_zero_draw_nothing():
    assert squares(hinton(np.zeros((2, 4)), 0.0, name="h", title="t"), "#ffffff") == []


def test_wide_inputs_show_fewer_units():
    assert units_shown(np.zeros((100, 64))) == 64
    assert units_shown(np.zeros((300, 784))) == SQUARES // 784
    assert units_shown(np.zeros((10, 100_000))) == 1


def test_inputs_that_are_no_square_lie_in_a_row():
    svg = hinton(np.ones((2, 3)), 1.0, name="h", title="t")
    assert 'viewBox="0 0 3 3"' in svg
