"""The files: columns, numbers that agree, a page that asks for nothing."""

import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from report_factory import failed, places, study, with_trials
from rich.console import Console

from retroprop.errors import RetropropError
from retroprop.report.console import print_summary
from retroprop.report.page import as_yaml, render
from retroprop.report.summary import summarise
from retroprop.report.tables import effects_latex, effects_markdown
from retroprop.report.words import (
    claim_words,
    effect_name,
    joined,
    one_in,
    percent,
    points_of,
    range_of,
    signed,
)
from retroprop.report.write import write_report

COLUMNS = [
    "metric",
    "kind",
    "factor",
    "level",
    "other_factor",
    "other_level",
    "estimate",
    "low",
    "high",
    "p",
    "p_holm",
    "claim",
    "seeds",
]
HEADINGS = [
    "What was compared",
    "Effects",
    "All arms, by validation accuracy",
    "Learning curves",
    "Does the error signal reach the first layer?",
    "What the first layer has learned",
    "Overfitting gap and cost",
    "Method",
    "Words",
    "Settings and record",
]


class Reader(HTMLParser):
    """Collects headings, text of table rows, ids, and everything that could ask for a file."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings, self.rows, self.ids, self.asks, self.open = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in {"src", "href", "srcset", "action", "data"} and value[0] != "#":
                self.asks.append((tag, value))
        if tag == "h2":
            self.headings.append("")
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"} and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        if "h2" in self.open:
            self.headings[-1] += data
        if {"td", "th"} & set(self.open) and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def html(page) -> str:
    return page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def read(html) -> Reader:
    return Reader(html)


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def test_all_files_are_there_and_nothing_else(page):
    names = {path.name for path in page.parent.iterdir()}
    assert names == {
        "report.html",
        "effects.csv",
        "trials.csv",
        "effects.md",
        "effects.tex",
        "weights",
    }


def test_effects_csv(page, summary):
    rows = rows_of(page.parent / "effects.csv")
    assert list(rows[0]) == COLUMNS
    assert len(rows) == len(summary.effects) == 2 * (5 + 10 + 5 + 5 + 5)
    for row, effect in zip(rows, summary.effects, strict=True):
        assert float(row["estimate"]) == effect.estimate
        assert row["claim"] == effect.claim
        assert (row["p"] == "") == bool(np.isnan(effect.p))


def test_trials_csv(page, full):
    rows = rows_of(page.parent / "trials.csv")
    names = [factor.name for factor in full.factors]
    head = ["arm", "role", "seed", "multiplier", "rate", *names, "steps", "seconds"]
    head += ["train_accuracy", "validation_accuracy", "test_accuracy", "flags", "parameters"]
    assert list(rows[0]) == [*head, "flops", "key", "error"]
    assert len(rows) == len(full.trials)
    assert {row["test_accuracy"] for row in rows if row["role"] == "tuning"} == {""}
    assert all(row["test_accuracy"] for row in rows if row["role"] != "tuning")
    assert {row["relu"] for row in rows if row["role"] == "reference"} == {""}
    assert "diverged; did not learn" in {row["flags"] for row in rows}


def test_the_page_has_its_headings_in_order(read):
    assert read.headings == HEADINGS


def test_the_page_asks_for_nothing(html, read):
    assert read.asks == [("link", "data:,")]
    assert not re.search(r"https?:|@import|xmlns|url\((?!#)", html)
    assert len(html) < 3_000_000


def test_ids_are_unique_and_every_reference_has_one(html, read):
    assert len(set(read.ids)) == len(read.ids)
    used = set(re.findall(r'href="#([^"]+)"', html)) | set(re.findall(r"url\(#([^)]+)\)", html))
    assert used <= set(read.ids)


def test_pictures_have_titles_and_take_the_colours_of_the_page(html):
    pictures = re.findall(r"<svg .*?</svg>", html, flags=re.DOTALL)
    assert len(pictures) == 8
    assert all('aria-label="' in picture for picture in pictures)
    assert "#10000" not in html
    assert html.count("<figcaption>") == len(pictures)


def test_page_console_and_tables_have_the_same_numbers(page, html, read, summary):
    out = Console(width=160, file=io.StringIO(), color_system=None)
    print_summary(summary, out)
    said = out.file.getvalue()
    markdown = (page.parent / "effects.md").read_text(encoding="utf-8")
    cells = {tuple(row) for row in read.rows}
    for e in summary.of_kind("main", "interaction"):
        name, numbers = effect_name(summary.results.factors, e), [points_of(e)]
        numbers.append(range_of(e.low, e.high))
        assert any({name, *numbers, claim_words(e)} <= set(row) for row in cells)
        line = next(li for li in said.splitlines() if f"│ {name} " in li and numbers[0] in li)
        assert numbers[1] in line
        assert f"| {numbers[0]} |" in markdown
    best = summary.arms[0]
    assert any({best.label, percent(best.test.mean)} <= set(row) for row in cells)
    assert percent(best.test.mean) in said
    assert summary.answer in html
    assert " ".join(summary.answer.split()) in " ".join(said.split())


def test_names_of_users_are_only_text(tmp_path):
    small = study(tmp_path, ("relu",), seeds=2, references=False)
    evil = '<script>alert("x")</script> [bold] | \\ & _$x^2$'
    arms = tuple(replace(arm, label=f"{evil} {i}") for i, arm in enumerate(small.arms))
    found = summarise(replace(small, arms=arms, name=evil, settings={"a": evil}))
    html = render(found)
    assert "<script>alert" not in html
    assert html.count("<script>") == 1
    out = Console(width=200, file=io.StringIO(), color_system=None)
    print_summary(found, out)
    assert "[bold]" in out.file.getvalue()
    assert r"\|" in effects_markdown(found)
    assert r"\textbackslash{}" in effects_latex(found)


def test_latex_rows_have_their_cells(summary):
    text = effects_latex(summary)
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count(" & ") for line in body} == {5, 7}
    assert "_" not in re.sub(r"\\_", "", "".join(body))


def test_reports_of_unfinished_studies_still_come(small, tmp_path):
    empty = replace(small, trials=(), chosen=(-1,) * len(small.arms), folder=tmp_path / "new")
    html = write_report(empty).read_text(encoding="utf-8")
    assert Reader(html).headings == HEADINGS
    assert "No reporting trial is finished yet" in html
    assert (tmp_path / "new" / "effects.csv").read_text().strip() == ",".join(COLUMNS)


def test_the_page_says_why_trials_failed(tmp_path):
    two = study(tmp_path, ("relu",), seeds=2, references=False)
    broken = with_trials(two, dict.fromkeys(places(two, 1), failed("no memory <left>")))
    assert "no memory &lt;left&gt;" in render(summarise(broken))


@pytest.mark.parametrize("design", ["one_at_a_time", "leave_one_out"])
def test_pages_of_other_designs(tmp_path, design):
    html = render(summarise(study(tmp_path, ("relu", "dropout"), design=design, seeds=2)))
    assert "indicative" in html
    assert "The same arms, asked in other ways" not in html
    assert Reader(html).headings == HEADINGS


def test_a_page_with_a_fixed_test_set_shows_both_intervals(tmp_path):
    html = render(summarise(study(tmp_path, ("relu",), official=True, seeds=3)))
    assert "over seeds and images" in html


def test_a_folder_that_cannot_be_written_is_an_error(small, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    none = replace(small, trials=(), chosen=(-1,) * len(small.arms), folder=blocked / "study")
    with pytest.raises(RetropropError, match="Make the folder writable"):
        write_report(none)


def test_the_same_study_gives_the_same_page_and_leaves_matplotlib_alone(summary, html):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    assert render(summary) == html
    assert dict(mpl.rcParams) == before


def test_records_become_yaml(tmp_path):
    text = as_yaml({"a": np.float64(1.5), "b": (1, 2), "c": tmp_path.name, "d": {"e": None}})
    assert text == f"a: 1.5\nb:\n- 1\n- 2\nc: {tmp_path.name}\nd:\n  e: null\n"


def test_words():
    assert signed(0.0) == signed(-0.001) == "0.00"
    assert signed(-1.239) == "−1.24"
    assert signed(float("nan")) == "–"
    assert joined(["a", "b", "c"]) == "a, b and c"
    assert one_in(1 / 240) == "1/240"
    assert one_in(0.8) == "0.8"
