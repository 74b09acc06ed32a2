"""Which trials train together, and whether their step is compiled."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

# More members than this gain nothing, and their weights leave the cache.
_MOST_MEMBERS = 48
_CACHE_BYTES = 6 * 2**20
# Copies of a member's weights that one step holds, and the same again for activations.
COPIES = 12
# Seconds that compiling must save before it is worth its own cost.
_WORTH_COMPILING = 60.0
_SAVED_PER_STEP = 0.0008
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
    weights: number of parameters. steps: optimizer steps.
    """

    key: str
    program: str
    seed: str
    replica: float
    standing: tuple[str, ...]
    weights: int
    steps: int


@dataclass(frozen=True)
class Group:
    """Trials that train together, in the order they stand in."""

    keys: tuple[str, ...]
    compiled: bool


def has_compiler() -> bool:
    """Whether a C++ compiler is there for torch.compile to use."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++", "cl"))


def most_members(weights: int, steps: int, memory: float) -> int:
    """Members a group, by cache, memory (bytes) and the time a group may take; at least one."""
    bytes_each = 4 * weights
    step = max(_STEP_LEAST, _STEP_PER_MILLION * weights / 1e6)
    limits = (
        _CACHE_BYTES // bytes_each,
        int(memory // (bytes_each * 2 * COPIES)),
        int(_LONGEST_GROUP / (step * steps)),
        _MOST_MEMBERS,
    )
    return max(1, min(limits))


def plan(items: Sequence[Item], *, memory: float, compiler: bool) -> list[Group]:
    """Groups for all items, the same for the same items.

    Args:
        items: trials to train.
        memory: bytes that one worker may use.
        compiler: whether compiling is possible.
    """
    groups: list[Group] = []
    ordered = sorted(
        items, key=lambda item: (item.program, _by_number(item.seed), item.replica, item.standing)
    )
    for _, found in groupby(ordered, key=lambda item: item.program):
        own = list(found)
        work = sum(item.steps for item in own) * _SAVED_PER_STEP
        compiled = compiler and work > _WORTH_COMPILING
        size = max(item.weights for item in own)
        most = most_members(size, max(item.steps for item in own), memory)
        seeds = Counter(item.seed for item in own)
        packed: list[Item] = []
        # All of a seed together if it fits, else a learning rate at a time: either way each group of a
        # full design holds the same arms, so one compiled step serves all.
        for _, block in groupby(
            own, key=lambda item: (item.seed, item.replica if seeds[item.seed] > most else 0.0)
        ):
            members = list(block)
            if packed and len(packed) + len(members) > most:
                groups += _groups(packed, most, compiled)
                packed = []
            packed += members
        groups += _groups(packed, most, compiled)
    return _interleaved(groups)


def _groups(items: Sequence[Item], most: int, compiled: bool) -> list[Group]:
    standing = sorted(items, key=lambda item: (item.standing, _by_number(item.seed), item.replica))
    count = -(-len(standing) // most)
    size = -(-len(standing) // count)
    return [
        Group(tuple(item.key for item in standing[i : i + size]), compiled)
        for i in range(0, len(standing), size)
    ]


def _by_number(seed: str) -> tuple[int, str]:
    """Sort key that puts seed 2 before seed 10."""
    return len(seed), seed


def _interleaved(groups: Sequence[Group]) -> list[Group]:
    """One compiled group, the eager ones, then the rest: one worker compiles while others train."""
    fast = [group for group in groups if group.compiled]
    slow = [group for group in groups if not group.compiled]
    return [*fast[:1], *slow, *fast[1:]]
