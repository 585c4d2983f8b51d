"""Warnings of failures that show in a run's metrics."""

from collections.abc import Mapping, Sequence

from utils.metrics import Signature
from utils.runs.members import Member
from utils.runs.progress import Progress

_ROWS = 3  # in a row, before a failure is one that lasts


class Watch:
    """Notices failures that last, and speaks of each once per seed.

    One that lapses and returns is not spoken of again: it is known by then, and train.csv and the
    curves show when it comes and goes.

    Args:
        signatures: What to watch for.
        progress: Where the run is; keeps what has been noticed, so that a resumed run says what an
            undisturbed one would.
    """

    def __init__(self, signatures: Sequence[Signature], progress: Progress):
        self._signatures = signatures
        self._progress = progress

    def warnings(self, row: Mapping[str, float], member: Member) -> list[str]:
        """Return what there is to say about a member's row of train.csv at the present step.

        The row's metrics are means since the step of the row before.
        """
        progress, step = self._progress, self._progress.step
        before = progress.showing.get(member.key, {})
        told = progress.warned.setdefault(member.key, [])
        showing, said = {}, []
        for signature in self._signatures:
            if not signature.shows_in(row):
                continue
            rows, since = before.get(signature.name, (0, progress.last_logged))
            showing[signature.name] = [rows + 1, since]
            lasts = rows + 1 >= _ROWS and step - since >= signature.lasting
            if lasts and signature.name not in told:
                told.append(signature.name)
                said.append(
                    f"warning: seed {member}, step {step}: {signature.name}, for {step - since:,} "
                    f"steps now. Remedy: {signature.remedy}"
                )
        progress.showing[member.key] = showing
        return said
