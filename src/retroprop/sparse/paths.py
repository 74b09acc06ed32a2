"""When a sparse backward pass gathers the kept units, and when it multiplies by zeros.

Both give the same entries. Gathering saves products; where nearly all units are kept, or where every case
keeps its own, there is nothing to save and the others are masked before dense products.
"""

from retroprop.sparse.selection import Rule

# Above this share of the units kept, gathering them was slower than masking: docs/performance.md.
BREAK_EVEN = 0.75


def gathers(rule: Rule, units: int, groups: int = 1, inputs: int = 0) -> bool:
    """Whether a layer of so many units gathers; of convolutions in groups, those with a channel each do."""
    alike = groups == 1 or groups == units == inputs
    return alike and rule.per == "batch" and rule.fixed and rule.k(units) <= BREAK_EVEN * units
