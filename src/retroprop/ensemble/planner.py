"""Which trials train together, and how: compiled, eager, or one by one.

The plan is a function of the trials and the memory alone, never of how fast the machine is just now, so that
the same study is packed alike, and hence rounded alike, every time.
"""

import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

Way = Literal["compiled", "eager", "alone"]

# On a CPU more members gain nothing, and their weights leave the cache.
_MOST_MEMBERS = 48
_CACHE_BYTES = 4 * 2**20
# So many of one seed are not joined by others: what they share, minibatch and masks, is made once.
_ENOUGH = 16
# On a GPU members fill the device; few enough that two seeds of a large design, whose minibatches differ,
# do not share a group.
_MOST_MEMBERS_CUDA = 256
# Copies of a member's weights that one step holds: parameters, gradients, two slots of state, and the new
# ones beside the old.
COPIES = 12
# Numbers that a step holds for each activation of a case: the value, its gradient and what is kept between.
ACTIVATION_COPIES = 6
# On a CPU an eager stack of larger networks is slower than the plain loop, and so is one that convolves.
EAGER_WEIGHTS = 80_000
# Seconds that compiling must save before it is worth its own cost; of small networks, and of larger ones.
_WORTH_COMPILING = 60.0
_SAVED_PER_STEP = 0.0008
_SAVED_PER_STEP_LARGE = 0.0002
# Seconds of one step of one compiled member for each million weights, and at least.
_STEP_PER_MILLION = 0.004
_STEP_LEAST = 0.0002
_LONGEST_GROUP = 15.0


@dataclass(frozen=True)
class Item:
    """One trial as the planner sees it.

    program: only trials with one program can share a group.
    seed, replica: members of one seed share minibatches; a replica is one learning rate.
    standing: sort key that puts like members next to each other.
    weights: number of parameters. activations: numbers that a minibatch makes on its way.
    steps: optimizer steps.
    spatial: whether the network convolves.
    alone: whether it can only be trained by itself. compilable: whether its step may be compiled.
    """

    key: str
    program: str
    seed: str
    replica: float
    standing: tuple[str, ...]
    weights: int
    steps: int
    activations: int = 0
    spatial: bool = False
    alone: bool = False
    compilable: bool = True

    @property
    def bytes(self) -> int:
        """Bytes that a step of this member holds."""
        return 4 * (COPIES * self.weights + ACTIVATION_COPIES * self.activations)


@dataclass(frozen=True)
class Group:
    """Trials that train together, or one after another, in the order they stand in."""

    keys: tuple[str, ...]
    way: Way


def has_compiler() -> bool:
    """Whether a C++ compiler is there for torch.compile to use."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++", "cl"))


def most_members(item: Item, memory: float, device: str) -> int:
    """Members a group, by cache, memory (bytes) and the time a group may take; at least one."""
    room = int(memory // item.bytes)
    if device == "cuda":
        return max(1, min(room, _MOST_MEMBERS_CUDA))
    if item.spatial:
        return 1  # convolutions gain nothing from company on a CPU
    step = max(_STEP_LEAST, _STEP_PER_MILLION * item.weights / 1e6)
    cached = _CACHE_BYTES // (4 * item.weights)
    return max(1, min(cached, room, int(_LONGEST_GROUP / (step * item.steps)), _MOST_MEMBERS))


def plan(items: Sequence[Item], *, memory: float, compiler: bool, device: str = "cpu") -> list[Group]:
    """Groups for all items, the same for the same items.

    Args:
        items: trials to train.
        memory: bytes that one worker may use.
        compiler: whether compiling is possible.
        device: cpu or cuda.
    """
    packed: list[list[Item]] = []
    ordered = sorted(
        items, key=lambda item: (item.program, _by_number(item.seed), item.replica, item.standing)
    )
    for _, found in groupby(ordered, key=lambda item: item.program):
        packed += _packed(list(found), memory, device)
    # One compiled step serves all groups of one make, and has to be worth its while over all of them.
    saved: defaultdict[object, float] = defaultdict(float)
    for members in packed:
        each = _SAVED_PER_STEP if members[0].weights <= EAGER_WEIGHTS else _SAVED_PER_STEP_LARGE
        saved[_make(members)] += sum(item.steps for item in members) * each
    groups = []
    for members in packed:
        way = _way(members, compiler and saved[_make(members)] > _WORTH_COMPILING, device)
        parts = [[item] for item in members] if way == "alone" else [members]
        groups += [Group(tuple(item.key for item in part), way) for part in parts]
    return _interleaved(groups)


def _way(members: Sequence[Item], compiling: bool, device: str) -> Way:
    first = members[0]
    if first.alone or (device == "cpu" and first.spatial):
        return "alone"
    if compiling and all(item.compilable for item in members):
        return "compiled"
    large = max(item.weights for item in members) > EAGER_WEIGHTS
    return "alone" if device == "cpu" and large else "eager"


def _packed(own: Sequence[Item], memory: float, device: str) -> list[list[Item]]:
    """Members of groups, of items of one program."""
    most = min(most_members(item, memory, device) for item in own)
    seeds = Counter(item.seed for item in own)
    groups: list[list[Item]] = []
    packed: list[Item] = []
    # All of a seed together if it fits, else a learning rate at a time: either way each group of a
    # full design holds the same arms, so one compiled step serves all.
    for _, block in groupby(
        own, key=lambda item: (item.seed, item.replica if seeds[item.seed] > most else 0.0)
    ):
        members = list(block)
        if packed and (len(packed) >= _ENOUGH or len(packed) + len(members) > most):
            groups += _split(packed, most)
            packed = []
        packed += members
    return groups + _split(packed, most)


def _split(items: Sequence[Item], most: int) -> list[list[Item]]:
    standing = sorted(items, key=lambda item: (item.standing, _by_number(item.seed), item.replica))
    count = -(-len(standing) // most)
    size = -(-len(standing) // count)
    return [standing[i : i + size] for i in range(0, len(standing), size)]


def _make(members: Sequence[Item]) -> object:
    """What groups must share to share a compiled step."""
    first = members[0]
    one_seed = all(item.seed == first.seed for item in members)
    return first.program, one_seed, tuple(item.standing for item in members)


def _by_number(seed: str) -> tuple[int, str]:
    """Sort key that puts seed 2 before seed 10."""
    return len(seed), seed


def _interleaved(groups: Sequence[Group]) -> list[Group]:
    """One compiled group, the others, then the rest: one worker compiles while others train."""
    fast = [group for group in groups if group.way == "compiled"]
    slow = [group for group in groups if group.way != "compiled"]
    return [*fast[:1], *slow, *fast[1:]]
