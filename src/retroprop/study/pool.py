"""Worker processes of one machine: each trains one group at a time; a dead one is replaced."""

import contextlib
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Job = tuple[int, dict[str, Any]]
Answer = tuple[int, dict[str, Any]]


class Pool:
    """Runs jobs on worker processes and gives their answers as they come.

    Plain subprocesses rather than multiprocessing, so that a script needs no main guard and a notebook
    works. Every job gets an answer: a worker that ends in the middle of one is replaced and the job tried
    again, and at last in halves, as the system may have ended the worker for want of memory; what fails
    even so is an answer with its error.

    Args:
        workers: processes.
        log: file that takes what workers write to standard error.
    """

    def __init__(self, workers: int, log: Path) -> None:
        self.workers = workers
        self.log = log
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._idle: list[subprocess.Popen[bytes]] = []
        self._closed = False

    def run(self, jobs: Sequence[Job]) -> Iterator[Answer]:
        """Give (id, answer) for every job, in the order they finish."""
        waiting: queue.Queue[Job] = queue.Queue()
        answers: queue.Queue[Answer] = queue.Queue()
        for job in jobs:
            waiting.put(job)
        for _ in range(min(self.workers, len(jobs))):
            threading.Thread(target=self._serve, args=(waiting, answers), daemon=True).start()
        for _ in jobs:
            while True:
                try:
                    # A wait without an end would keep Ctrl-C from being seen on some systems.
                    answer = answers.get(timeout=0.2)
                    break
                except queue.Empty:
                    continue
            yield answer

    def close(self) -> None:
        """End all workers."""
        self._closed = True
        for process in list(self._processes):
            self._end(process)

    def _serve(self, waiting: "queue.Queue[Job]", answers: "queue.Queue[Answer]") -> None:
        while not self._closed:
            try:
                key, job = waiting.get_nowait()
            except queue.Empty:
                return
            for attempt in (job, job, {**job, "halved": True}):
                answer = self._ask(attempt)
                if "ended" not in answer or self._closed:
                    break
            if "ended" in answer:
                answer = {"error": answer["ended"]}
            answers.put((key, answer))

    def _ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """What a worker makes of a job; why it ended, when it gave no answer."""
        process: subprocess.Popen[bytes] | None = None
        try:
            # A worker that has compiled a step is kept for later jobs.
            process = self._idle.pop() if self._idle else self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            pickle.dump(job, process.stdin)
            process.stdin.flush()
            answer: dict[str, Any] = pickle.load(process.stdout)
        except Exception as error:  # whatever it is, the study must hear of this group
            code = None if process is None else self._end(process)
            return {
                "ended": f"A worker process ended with code {code} ({type(error).__name__}: {error}); "
                f"see {self.log}."
            }
        self._idle.append(process)
        return answer

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        process.kill()
        self._processes.discard(process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "retroprop.study.worker", str(self.log.with_name(".compiling"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches the parent alone
            )
        self._processes.add(process)
        return process
