"""A study as its file says it: every key is a field, checked when the study is made."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retroprop.errors import RetropropError, UnknownName
from retroprop.fix_config import build_fix
from retroprop.study.design import DESIGNS, OFF, Arm, Factor, build_arms, build_factor

if TYPE_CHECKING:
    from retroprop.fix import Fix
    from retroprop.study.results import Results

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("float32", "tf32", "bf16")
_RECIPE = {"rate": 0.1, "momentum": 0.9}
_REFERENCES = (
    {"name": "1986 recipe, this depth"},
    {"name": "1986 recipe, one hidden layer", "hidden_layers": 1},
)
_FACTORS = ("relu", "batch_norm", "residual", {"dropout": {"p": 0.1}}, "sparse_backprop")


@dataclass(frozen=True)
class Study:
    """A design over factors, a grid of learning rates, seeds, one data set.

    Args:
        name: of the study; its folder is runs/<name> unless `out` says otherwise.
        data: data set by name.
        network: units of each layer, input to output, joined by hyphens; or a name: lenet, plain20 to
            plain56, resnet20 to resnet56.
        recipe: rate (the base that `rates` multiplies) and momentum of the 1986 rule.
        held: fixes that are on in every arm.
        factors: each a fix (off | on), or a list of levels whose first is what effects are against.
        design: full_factorial, one_at_a_time or leave_one_out.
        references: arms outside the design, tuned alike: each a name, and optionally fixes (none by
            default, not even held ones) and, for a network of sizes, hidden_layers (how many are kept).
        rates: multipliers of the base rate; each arm picks one by validation.
        tuning_seeds: seeds that only choose rates.
        seeds: fresh seeds that are reported.
        epochs: passes over the training images.
        batch: images a step; null takes the whole set, one step an epoch.
        memory: GiB that training may use in all; null takes what is free, less a margin.
        device: auto, cpu or cuda.
        precision: of matrix products: float32; tf32, on CUDA devices that have it; bf16, by autocast.
        out: folder of everything the study writes.
        data_root: folder that holds MNIST/ and friends.

    Raises:
        RetropropError: when a value is not what its field expects.
    """

    name: str = "digits"
    data: str = "digits"
    network: str = "64-64-64-64-64-10"
    recipe: dict[str, float] = field(default_factory=lambda: dict(_RECIPE))
    held: list[Any] = field(default_factory=lambda: ["cross_entropy"])
    factors: list[Any] = field(default_factory=lambda: list(_FACTORS))
    design: str = "full_factorial"
    references: list[dict[str, Any]] = field(default_factory=lambda: [dict(r) for r in _REFERENCES])
    rates: list[float] = field(default_factory=lambda: [0.03, 0.1, 0.3, 1, 3, 10])
    tuning_seeds: int = 3
    seeds: int = 12
    epochs: int = 30
    batch: int | None = 64
    memory: float | None = None
    device: str = "auto"
    precision: str = "float32"
    out: str | None = None
    data_root: str | None = None

    def __post_init__(self) -> None:
        _check_text(self)
        _check_numbers(self)
        _check_recipe(self.recipe)
        if self.design not in DESIGNS:
            raise UnknownName("design", self.design, DESIGNS)
        if self.device not in DEVICES:
            raise UnknownName("device", self.device, DEVICES)
        if self.precision not in PRECISIONS:
            raise UnknownName("precision", self.precision, PRECISIONS)
        if self.references == list(_REFERENCES) and self.network[:1].isalpha():
            # A network with a name has one depth, so the default's shorter one is left out.
            object.__setattr__(self, "references", [dict(_REFERENCES[0])])
        for key in ("held", "factors", "references"):
            if not isinstance(getattr(self, key), (list, tuple)):
                raise RetropropError(
                    f"{key}={getattr(self, key)!r} was given; expected a list, such as [relu]."
                )
        if not self.factors:
            raise RetropropError("factors=[] was given; expected at least one, such as [relu].")

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> "Study":
        """A study from keys and values.

        Raises:
            UnknownName: for a key that no study has.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        for key in given:
            if key not in known:
                raise UnknownName("study key", str(key), known)
        return cls(**given)

    @classmethod
    def load(cls, path: str | Path, **changes: Any) -> "Study":
        """A study from a YAML file, with some keys replaced.

        Raises:
            RetropropError: when the file is missing or is not a YAML mapping.
        """
        return cls.from_mapping({**read_yaml(Path(path)), **changes})

    @cached_property
    def folder(self) -> Path:
        """Where everything of the study is written."""
        return Path(self.out) if self.out else Path("runs") / self.name

    @cached_property
    def built_factors(self) -> tuple[Factor, ...]:
        """The factors with their fixes."""
        return tuple(build_factor(spec) for spec in self.factors)

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """Arms of the design, then reference arms."""
        held = [build_fix(spec) for spec in self.held]
        arms = build_arms(self.built_factors, held, self.design, self.network)
        arms += [_reference(spec, self.network) for spec in self.references]
        labels = [arm.label for arm in arms]
        for label in labels:
            if labels.count(label) > 1:
                raise RetropropError(f"Two arms are named {label!r}; give each reference its own name.")
        return tuple(arms)

    def resolved(self) -> dict[str, Any]:
        """The study with every setting of every fix written out, for records."""

        def level(fix: "Fix | None") -> Any:
            return OFF if fix is None else fix.resolved()

        factors = [
            level(factor.levels[1].fix)
            if len(factor.levels) == 2 and factor.levels[0].fix is None
            else [level(one.fix) for one in factor.levels]
            for factor in self.built_factors
        ]
        held = [build_fix(spec).resolved() for spec in self.held]
        recipe = {**_RECIPE, **self.recipe}
        return {**self.settings(), "recipe": recipe, "held": held, "factors": factors}

    def settings(self) -> dict[str, Any]:
        """The study as plain values, as a file would say it."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    def run(self) -> "Results":
        """Train what is not in the store yet, and give all results.

        Raises:
            RetropropError: when the study cannot be run as it is; nothing finished is lost.
        """
        from retroprop.study.runner import run

        return run(self)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        RetropropError: when the file is missing, unreadable or not a YAML mapping.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RetropropError(
            f"The study file {str(path)!r} could not be read ({error}). Give the path of a YAML file, "
            "or none for the default study."
        ) from None
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f" at line {place.line + 1}" if place else ""
        raise RetropropError(f"The study file {str(path)!r} is not valid YAML{where}; mend it.") from None
    if not isinstance(given, dict):
        raise RetropropError(
            f"The study file {str(path)!r} holds {type(given).__name__}; expected keys and values, such as "
            "`seeds: 12`."
        )
    return given


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    from retroprop.fix import Fix  # late: a study file is read without torch

    if isinstance(value, Fix):
        return value.config()
    raise RetropropError(f"{value!r} was given; expected plain values or fixes.")


def _reference(spec: Any, network: str) -> Arm:
    known = ("name", "hidden_layers", "fixes")
    if not isinstance(spec, Mapping) or "name" not in spec:
        raise RetropropError(
            f"The reference {spec!r} was given; expected a mapping with a name, such as "
            "{name: 1986 recipe, fixes: []}."
        )
    for key in spec:
        if key not in known:
            raise UnknownName("key of a reference", str(key), known)
    from retroprop.fix import check_together

    if not isinstance(spec["name"], str) or not isinstance(spec.get("fixes", []), (list, tuple)):
        raise RetropropError(
            f"The reference {dict(spec)!r} was given; expected a name as text, and fixes as a list such as "
            "[relu]."
        )
    fixes = check_together([build_fix(item) for item in spec.get("fixes", [])])
    own = _shortened(network, spec["hidden_layers"], spec["name"]) if "hidden_layers" in spec else network
    return Arm(str(spec["name"]), (), tuple(fixes), own, reference=True)


def _shortened(network: str, kept: Any, name: str) -> str:
    """The sizes of a network with its first hidden layers only."""
    from retroprop.networks.mlp import parse_sizes
    from retroprop.networks.named import check_name, is_sizes

    check_name(network)
    if not is_sizes(network):
        raise RetropropError(
            f"hidden_layers={kept!r} was given for the reference {name!r}, and {network} has one depth; "
            "expected a network of layer sizes, such as 64-64-10. Give references without hidden_layers, "
            "such as `references: [{name: 1986 recipe}]`."
        )
    sizes = [str(size) for size in parse_sizes(network)]
    if not isinstance(kept, int) or not 0 <= kept <= len(sizes) - 2:
        raise RetropropError(
            f"hidden_layers={kept!r} was given for the reference {name!r}; expected 0 to {len(sizes) - 2}, "
            f"the hidden layers of {network}."
        )
    return "-".join([*sizes[: 1 + kept], sizes[-1]])


def _check_text(study: Study) -> None:
    for key in ("name", "data", "network", "design", "device", "precision"):
        if not isinstance(getattr(study, key), str) or not getattr(study, key):
            raise RetropropError(f"{key}={getattr(study, key)!r} was given; expected text.")
    if any(mark in study.name for mark in "/\\") or study.name.startswith("."):
        raise RetropropError(
            f"name={study.name!r} was given; expected a plain name, which becomes a folder in runs/."
        )
    for key in ("out", "data_root"):
        if not isinstance(getattr(study, key), (str, type(None))):
            raise RetropropError(f"{key}={getattr(study, key)!r} was given; expected a folder or null.")


def _check_numbers(study: Study) -> None:
    for key in ("tuning_seeds", "seeds", "epochs", "batch"):
        value = getattr(study, key)
        if key == "batch" and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise RetropropError(f"{key}={value!r} was given; expected a whole number of at least 1.")
    rates = study.rates
    if not isinstance(rates, (list, tuple)) or not rates or not all(_positive(r) for r in rates):
        raise RetropropError(
            f"rates={rates!r} was given; expected a list of positive multipliers, such as [0.1, 1, 10]."
        )
    if sorted(set(rates)) != list(rates):
        raise RetropropError(f"rates={rates!r} was given; expected each once, the smallest first.")
    if study.memory is not None and not _positive(study.memory):
        raise RetropropError(f"memory={study.memory!r} was given; expected GiB above 0, or null.")


def _check_recipe(recipe: Any) -> None:
    if not isinstance(recipe, Mapping):
        raise RetropropError(f"recipe={recipe!r} was given; expected a mapping such as {_RECIPE}.")
    for key in recipe:
        if key not in _RECIPE:
            raise UnknownName("key of recipe", str(key), _RECIPE)
    if not _positive(recipe.get("rate", 0.1)):
        raise RetropropError(f"recipe.rate={recipe['rate']!r} was given; expected a number above 0.")
    momentum = recipe.get("momentum", 0.9)
    if not isinstance(momentum, (int, float)) or not 0 <= momentum < 1:
        raise RetropropError(f"recipe.momentum={momentum!r} was given; expected 0 <= momentum < 1.")


def _positive(value: Any) -> bool:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    return fits and 0 < value < float("inf")
