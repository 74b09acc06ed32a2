"""The registry: lazy classes, names, entry points, and its generated types."""

import subprocess
import sys
import textwrap
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import retroprop
from retroprop import fixes
from retroprop.errors import RetropropError, UnknownName
from retroprop.testing.stub import STUB, stub_text


def test_a_class_resolves_by_its_own_name():
    from retroprop.fixes.relu import ReLU

    assert fixes.ReLU is ReLU is fixes.get("relu") is retroprop.fixes.ReLU
    assert {fixes.get(name).name for name in fixes.names()} == set(fixes.names())
    for name in fixes.names():
        kind = fixes.get(name)
        assert getattr(fixes, kind.__name__) is kind


def test_an_unknown_name_has_a_close_match():
    with pytest.raises(UnknownName, match=r"Unknown fix 'batchnorm'. Did you mean 'batch_norm'\?"):
        fixes.get("batchnorm")
    with pytest.raises(AttributeError, match=r"has no attribute 'Relu'\. Did you mean 'ReLU'\?"):
        _ = fixes.Relu
    with pytest.raises(AttributeError, match=r"has no attribute 'Rectifier'; see retroprop\.fixes\.names"):
        _ = fixes.Rectifier


def test_nothing_is_imported_before_it_is_asked_for():
    code = "import sys, retroprop.fixes; print(sorted(m for m in sys.modules if m.startswith('torch')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_stub_is_in_step_with_the_files():
    assert STUB.read_text(encoding="utf-8") == stub_text(), "run: python -m retroprop.testing stub"


THIRD_PARTY = '''
from dataclasses import dataclass
from typing import final
from torch import nn
from retroprop.fix import ModelFix, Paper, Stage

@final
@dataclass(frozen=True)
class Silu(ModelFix):
    """SiLU."""
    name = "silu"
    paper = Paper(2017, "Ramachandran, Zoph & Le", "Searching for activation functions", "arXiv")
    stage = Stage.ACTIVATION
    slot = "activation"
    edits = "hidden activations -> SiLU"

    def rewrite(self, network, surgeon):
        surgeon.fill("activation", lambda site: nn.SiLU())
        return surgeon.network
'''


@pytest.fixture
def distribution(tmp_path: Path) -> Path:
    """A folder that holds an installed package with a fix."""
    (tmp_path / "silu_fix.py").write_text(THIRD_PARTY)
    info = tmp_path / "silu_fix-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: silu-fix\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[retroprop.fixes]\nsilu = silu_fix:Silu\n")
    return tmp_path


def test_an_installed_package_adds_a_fix(distribution: Path):
    code = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(distribution)!r})
        from retroprop import fixes
        from retroprop.fix_config import build_fix
        assert "silu" in fixes.names() and "relu" in fixes.names()
        assert fixes.Silu is fixes.get("silu")
        assert build_fix("silu") == fixes.Silu()
        from retroprop.testing import LAWS
        for name in ("value_object", "composes"):
            LAWS[name](fixes.Silu())
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("target", ["retroprop.fixes.relu:ReLU", "retroprop.fix:Paper", "math:pi"])
def test_an_entry_point_that_is_not_its_fix_is_an_error(target: str, monkeypatch: pytest.MonkeyPatch):
    point = EntryPoint("other", target, "retroprop.fixes")
    monkeypatch.setattr(fixes, "_foreign", lambda: {"other": point})
    with pytest.raises(RetropropError, match=r"entry point 'other' .*Mend the package"):
        fixes.get("other")


def test_a_file_must_hold_one_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "two_fixes_here.py").write_text(
        THIRD_PARTY + THIRD_PARTY.replace("class Silu", "class Other")
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RetropropError, match="two_fixes_here holds 2 fixes; expected exactly one"):
        fixes._the_fix_in("two_fixes_here")
