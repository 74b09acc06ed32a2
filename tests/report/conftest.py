from pathlib import Path

import pytest
from report_factory import diverged, places, study, with_trials

from retroprop.report.summary import Summary, summarise
from retroprop.report.write import write_report
from retroprop.study.results import Results

THREE = ("relu", "residual", "dropout")


@pytest.fixture(scope="session")
def full(tmp_path_factory) -> Results:
    """The default study, 2^5 arms and two references, with one diverged trial."""
    results = study(tmp_path_factory.mktemp("full"))
    return with_trials(results, {places(results, 0)[3]: diverged()})


@pytest.fixture(scope="session")
def summary(full: Results) -> Summary:
    return summarise(full)


@pytest.fixture(scope="session")
def page(full: Results) -> Path:
    return write_report(full)


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Results:
    """A study of 2^3 arms without references."""
    return study(tmp_path_factory.mktemp("small"), THREE, references=False)
