"""Laws of a fix as a value: its metadata, and how it is written and read."""

import inspect
import pickle
import sys
from dataclasses import MISSING, FrozenInstanceError, fields, replace

import yaml

from retroprop import fixes as registry
from retroprop.errors import UnknownName
from retroprop.fix import Fix, Paper, Stage
from retroprop.fix_config import build_fix, configure
from retroprop.testing.law import LawBroken, law, require


@law(1, "one fix a file, metadata complete")
def metadata(fix: Fix) -> None:
    """The class says what a catalogue needs, and its file holds no other fix."""
    kind = type(fix)
    module = sys.modules[kind.__module__]
    own = [
        value.__name__
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Fix)
        and value.__module__ == kind.__module__
        and not inspect.isabstract(value)
    ]
    require(own == [kind.__name__], f"its file holds {len(own)} fixes ({', '.join(own)})")
    file = kind.__module__.rpartition(".")[2]
    require(file == fix.name, f"its file is named {file!r}; expected {fix.name!r}")
    require(fix.name.isidentifier() and fix.name.islower(), "its name is not in snake_case")
    require(isinstance(fix.stage, Stage), f"its stage is {fix.stage!r}; expected a Stage")
    require(isinstance(fix.paper, Paper), f"its paper is {fix.paper!r}; expected a Paper")
    require(fix.paper.year >= 1986, f"its paper is of {fix.paper.year}; expected 1986 or later")
    texts = (fix.paper.authors, fix.paper.title, fix.paper.where, fix.edits, kind.__doc__ or "")
    require(all(text.strip() for text in texts), "authors, title, where, edits or docstring is empty")
    for field in fields(fix):
        require(field.default is not MISSING, f"its field {field.name!r} has no default")
    unknown = set(fix.neutral or {}) - {field.name for field in fields(fix)}
    require(not unknown, f"neutral names {sorted(unknown)}, which it has no field for")


@law(2, "frozen, hashable, read from text as written")
def value_object(fix: Fix) -> None:
    """A fix is a value: it cannot change, and YAML and pickle give an equal one back."""
    kind = type(fix)
    require(getattr(kind, "__final__", False), "its class is not marked @final")
    try:
        setattr(fix, fields(fix)[0].name if fields(fix) else "name", None)
        raise LawBroken("its fields can be set; expected @dataclass(frozen=True)")
    except FrozenInstanceError:
        pass
    require(pickle.loads(pickle.dumps(fix)) == fix, "pickle gives another fix back")
    require(len({fix, replace(fix)}) == 1, "two equal fixes differ in their hash")
    for written in (fix.config(), fix.resolved()):
        read = yaml.safe_load(yaml.safe_dump(written))
        settings = {} if isinstance(read, str) else read[fix.name]
        require(configure(kind, settings) == fix, f"YAML {read!r} gives another fix back")
        if fix.name in registry.names() and registry.get(fix.name) is kind:
            require(build_fix(read) == fix, f"the registry reads {read!r} as another fix")
    try:
        configure(kind, {"no_such_setting": 1})
        raise LawBroken("an unknown setting is taken")
    except UnknownName:
        pass
