"""The README's code runs, and its numbers are those of the result files."""

import re
from pathlib import Path

import pytest
import yaml

from benchmarks import readme

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_two_commands_come_first():
    first = re.findall(r"^    (make \w+)", README, flags=re.MULTILINE)[:2]
    assert first == ["make demo", "make test"]
    assert README.index("make demo") < README.index("![")


def test_the_python_block_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(blocks("python")[0], {"__name__": "readme"})
    said = capsys.readouterr().out
    assert "torch.Size([8, 10])" in said
    assert "dropout p=0.2" in said


def test_the_lightning_block_trains_a_step(tmp_path, monkeypatch):
    lightning = pytest.importorskip("lightning")
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    monkeypatch.chdir(tmp_path)
    names = {"__name__": "readme"}
    exec(blocks("python")[1], names)
    module = names["Classifier"]()
    before = [p.detach().clone() for p in module.parameters()]
    data = TensorDataset(torch.rand(32, 64), torch.randint(0, 10, (32,)))
    trainer = lightning.Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data, batch_size=16))
    assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*number of training batches.*")
def test_the_ensemble_block_trains(tmp_path, monkeypatch, capsys):
    import torch

    monkeypatch.chdir(tmp_path)
    names = {"__name__": "readme"}
    exec(blocks("python")[2], names)
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said if line.split()[0] in names["names"]] == names["names"]
    assert names["network"](torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_the_study_file_in_the_readme_can_be_planned():
    from retroprop.study.study import Study

    study = Study.from_mapping(yaml.safe_load(blocks("yaml")[0]))
    assert len([arm for arm in study.arms if not arm.reference]) == 3 * 3 * 2


def test_the_block_on_sparse_layers_runs():
    text = (ROOT / "docs" / "sparse.md").read_text(encoding="utf-8")
    names = {"__name__": "docs"}
    exec(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[0], names)
    assert names["weight"].grad.any(1).sum() == round(0.05 * 1024)
    assert type(names["fixed"].network[0]) is names["SparseLinear"]


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.name)
def test_results_on_a_page_are_those_of_the_result_files(page):
    text = page.read_text(encoding="utf-8")
    assert readme.rendered(text) == text
    assert (ROOT / "docs" / "effects.svg").exists()


def test_every_link_of_the_readme_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
