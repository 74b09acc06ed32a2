"""Progress of a running study on the console."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from retroprop.study.progress import Watcher


class ProgressWatcher(Watcher):
    """A bar with trials done, trials a second, time left and the best arm by validation.

    Where the output is no terminal, a line a group.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[best]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", visible=False, speed="", best="")
        self._started = 0.0
        self._done = self._total = self._new = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def planned(self, phase: str, trials: int, finished: int, groups: int) -> None:
        before = f", {finished} of them finished before" if finished else ""
        self.console.print(f"{phase}: {trials} trials{before}; {groups} groups to train.")
        self._started, self._done, self._total, self._new = time.perf_counter(), finished, trials, 0
        self._bar.remove_task(self._task)
        starting = "workers start; a large study compiles first" if groups else ""
        self._task = self._bar.add_task(phase, total=trials, completed=finished, speed="", best=starting)

    def group_done(self, phase: str, trials: int, best: str, validation: float) -> None:
        self._done, self._new = self._done + trials, self._new + trials
        elapsed = time.perf_counter() - self._started
        speed = self._new / elapsed
        leader = f"best by validation: {best} {validation:.1%}" if best else "reference arms first"
        self._bar.update(self._task, completed=self._done, speed=f"{speed:.1f} trials/s", best=leader)
        self._bar.refresh()
        if not self.console.is_terminal:
            left = (self._total - self._done) / speed
            self.console.print(
                f"  {self._done}/{self._total} trials, {speed:.1f} trials/s, {left:.0f} s left, {leader}",
                soft_wrap=True,
            )

    def failed(self, phase: str, trials: int, error: str) -> None:
        self._done += trials
        self.console.print(f"{trials} {phase} trials failed:\n{error}", style="red", markup=False)

    def note(self, text: str) -> None:
        self.console.print(f"note: {text}", markup=False)
