"""What all pages of one server share: its folders, its queue, and who may name paths."""

import threading
import time
from pathlib import Path

from latent_prior import OptionError
from latent_prior.app import history
from latent_prior.app.queue import ACTIVE, Job, Queue, free_name, stamp
from latent_prior.app.tabs import Form, Tab, run_name
from latent_prior.app.uploads import Uploads

REREAD_SECONDS = 3.0  # between two looks at the runs on disk
REMOTE = "paths and settings can be given only in an app that listens on this machine alone (without --listen)"


class Desk:
    """local: only this machine reaches the server, so that paths on it may be typed; others would read its files."""

    def __init__(self, out: Path, queue: Queue, most: int, local: bool = True):
        self.out, self.queue, self.local = out.resolve(), queue, local
        self.uploads = Uploads(self.out / "app" / "uploads", most)
        self._lock = threading.Lock()
        self._past: tuple[float, list[history.Past]] = (float("-inf"), [])

    def start(self, tab: Tab, form: Form, settings: str = "") -> Job:
        """Queue the run of a form. settings: the text of its config, as edited. OptionError for what is missing."""
        edited = settings.strip() not in ("", tab.settings().strip())
        if not self.local and (edited or form.checkpoint.strip()):
            raise OptionError.because(REMOTE)
        with self._lock:
            name = free_name(run_name(form.prompt, stamp()), self._is_taken)
            if edited:
                tab.of_form(form, self.out, name)  # refuse before a file is written
                form = Form(**{**vars(form), "config": str(self.uploads.settings(settings)), "edited": True})
            command, folder = tab.of_form(form, self.out, name)
            return self.queue.add(Job(tab.kind, form.prompt.strip(), command, folder, self._log(name)))

    def resume(self, folder: Path) -> Job:
        """Queue the rest of an interrupted run. OptionError if there is nothing to go on from."""
        past = history.read(folder)
        if past is None or not past.can_resume:
            raise OptionError.because(f"{folder.name} has nothing to continue from")
        command = ("latent_prior", "resume", str(folder))
        return self.queue.add(Job(past.kind, past.prompt, command, folder, self._log(folder.name)), unless_active=True)

    def past(self) -> list[history.Past]:
        """The runs on disk, newest first, as of a few seconds ago."""
        with self._lock:
            when, found = self._past
            if time.monotonic() - when > REREAD_SECONDS:
                found = history.below(self.out)
                self._past = (time.monotonic(), found)
            return found

    def log_of(self, folder: Path) -> Path:
        """Where the app keeps what a run printed; there is none for a run from elsewhere."""
        job = self.queue.of(folder)
        return job.log if job is not None else self._log(folder.name)

    def newest(self) -> Path | None:
        """The folder of the run that a fresh page shows: the first that is in progress, or the last one."""
        jobs = self.queue.jobs
        active = [job for job in jobs if job.state in ACTIVE]
        return active[0].folder if active else jobs[-1].folder if jobs else None

    def _log(self, name: str) -> Path:
        return self.out / "app" / "logs" / f"{name}.txt"

    def _is_taken(self, name: str) -> bool:
        return self._log(name).exists() or any(job.log == self._log(name) for job in self.queue.jobs)
