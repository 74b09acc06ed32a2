"""Every job gets an answer, whatever becomes of the workers."""

import os
import signal
import threading
import time

import pytest

from retroprop.study.pool import Pool
from retroprop.study.study import Study
from retroprop.study.trial import make_trial


def one_job():
    study = Study(network="64-8-10", epochs=1)
    arm = next(i for i, arm in enumerate(study.arms) if not arm.reference)
    settings = make_trial(study, arm, "tuning", 0, 1.0).settings
    return {"settings": [settings], "data_root": None, "device": "cpu", "way": "eager"}


@pytest.fixture
def pool(tmp_path):
    pool = Pool(1, tmp_path / "worker.log")
    yield pool
    pool.close()


def test_a_worker_that_cannot_start_is_an_error_and_no_wait(tmp_path):
    pool = Pool(1, tmp_path / "missing" / "worker.log")
    ((key, answer),) = pool.run([(7, one_job())])
    assert key == 7
    assert "FileNotFoundError" in answer["error"]


def test_a_job_that_fails_is_an_error_and_the_worker_goes_on(pool):
    broken = {**one_job(), "device": "no such device"}
    answers = dict(pool.run([(1, broken), (2, one_job())]))
    assert "Traceback" in answers[1]["error"]
    assert len(answers[2]["rows"]) == 1


def test_a_worker_whose_device_is_broken_is_replaced(pool):
    """Its error is the job's answer; a device that has failed once fails in all of that process."""
    broken = {**one_job(), "device": "CUDA error: an illegal memory access"}
    answers = dict(pool.run([(1, broken), (2, one_job())]))
    assert "CUDA error" in answers[1]["error"]
    assert len(answers[2]["rows"]) == 1
    assert len(pool._processes) == 1


def test_a_killed_worker_is_replaced_and_its_job_done(pool):
    list(pool.run([(1, one_job())]))
    (idle,) = pool._processes
    os.kill(idle.pid, signal.SIGKILL)
    idle.wait()
    ((_, answer),) = pool.run([(2, one_job())])
    assert len(answer["rows"]) == 1


def test_a_worker_killed_in_the_middle_is_replaced_and_its_job_done(pool):
    def kill():
        while not pool._processes:
            time.sleep(0.01)
        time.sleep(0.5)  # it is still importing torch
        os.kill(next(iter(pool._processes)).pid, signal.SIGKILL)

    threading.Thread(target=kill).start()
    ((_, answer),) = pool.run([(1, one_job())])
    assert len(answer["rows"]) == 1
