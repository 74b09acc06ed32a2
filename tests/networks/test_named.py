"""Networks by name, and what is said of wrong names and sizes."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retroprop.errors import RetropropError, UnknownName
from retroprop.networks.convnet import CifarNet, LeNet
from retroprop.networks.mlp import MLP
from retroprop.networks.named import build, check, network_names

DIGITS = (1, 8, 8)


def test_names_and_sizes():
    assert isinstance(build("64-8-10", DIGITS, 10), MLP)
    assert isinstance(build("lenet", DIGITS, 10), LeNet)
    assert network_names() == (
        "lenet", "plain20", "plain32", "plain44", "plain56", "resnet20", "resnet32", "resnet44", "resnet56",
    )  # fmt: skip
    for name in network_names()[1:]:
        assert isinstance(build(name, DIGITS, 10), CifarNet)


@pytest.mark.parametrize(
    ("given_name", "close"), [("lenett", "lenet"), ("plain-20", "plain20"), ("resnet18", "resnet")]
)
def test_a_misspelt_name_gets_its_close_match(given_name: str, close: str):
    with pytest.raises(UnknownName, match=f"Unknown network '{given_name}'. Did you mean '{close}"):
        build(given_name, DIGITS, 10)


@pytest.mark.parametrize("sizes", ["32-8-10", "64-8-3", "10-64"])
def test_sizes_that_do_not_fit_the_data(sizes: str):
    with pytest.raises(RetropropError, match=r"64 pixels and 10 classes\. Give a network such as 64-64-10"):
        check(sizes, DIGITS, 10)


def test_pixels_of_all_channels_are_inputs():
    check("192-10", (3, 8, 8), 10)
    with pytest.raises(RetropropError, match="192 pixels"):
        check("64-10", (3, 8, 8), 10)


NUMBERS = st.lists(st.integers(-2, 99), max_size=3).map(lambda sizes: "-".join(map(str, sizes)))


@settings(deadline=None)
@given(name=st.text(max_size=12) | NUMBERS | NUMBERS.map(lambda sizes: f"64-{sizes}-10"))
@example("")
@example("²-10")
@example("٦٤-10")
@example("64--10")
@example("64-0x10")
@example(" 64 - 10")
@example("lenet ")
def test_any_text_is_a_network_or_a_clear_error(name: str):
    try:
        net = build(name, DIGITS, 10)
    except RetropropError as error:
        said = str(error)
    else:
        assert net(torch.zeros(1, *DIGITS)).shape == (1, 10)
        return
    assert name in said or repr(name) in said
