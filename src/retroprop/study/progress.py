"""What a running study tells whoever watches."""


class Watcher:
    """Hears how a study goes and says nothing; the command line brings one that speaks."""

    def planned(self, phase: str, trials: int, finished: int, groups: int) -> None:
        """A phase begins: its trials, those finished before, and groups to train."""

    def group_done(self, phase: str, trials: int, best: str, validation: float) -> None:
        """A group has finished, so many trials; the best arm by validation accuracy so far."""

    def failed(self, phase: str, trials: int, error: str) -> None:
        """A group has failed."""

    def note(self, text: str) -> None:
        """Something worth knowing, such as a fallback."""
