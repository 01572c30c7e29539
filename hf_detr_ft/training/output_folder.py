"""The folder that a run writes into: kept from other runs, and what in it may be written over."""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatch
from functools import cache
from os.path import isdir, islink
from pathlib import Path

from hf_detr_ft.atomic import follow_links, lock_folder, remove, sweep_leftovers
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.run_folder import (
    ALL_WEIGHTS,
    IMAGE_PLOTS,
    LOCK,
    MADE_WITH,
    RECIPE,
    REPLACED,
    UNFINISHED,
    WRITTEN,
    RunFolder,
)


class OutputFolder(RunFolder):
    """A run folder that a run is to write."""

    def unfinished(self, step: int) -> Path:
        """The folder in which the checkpoint of a step is made."""
        return self.path / UNFINISHED.format(step=step)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other runs out; the folder is made if it is not there, and goes again if nothing comes into it.

        Raises:
            RecipeError: it is a file, another process works there, or the disk refuses it.
        """
        if os.path.lexists(self.path) and not self.path.is_dir():
            kind = "a link that leads to no folder" if self.path.is_symlink() else "a file"
            raise RecipeError(f"training.output_dir: expected a folder, '{self}' is {kind}. Name another one.")
        with ExitStack() as stack:
            try:
                owner = stack.enter_context(lock_folder(self.path / LOCK))
            except OSError as error:
                raise self._refused(error) from error
            if owner:
                raise RecipeError(
                    f"training.output_dir: expected a folder that no run works in, found {owner} at work in '{self}'. "
                    f"Wait for its end, or name another folder. Should it have ended, remove '{self.path / LOCK}'."
                )
            yield

    def _refused(self, error: OSError) -> RecipeError:
        return RecipeError(f"training.output_dir: cannot make the folder '{self}': {error.strerror}. Name another one.")

    def _entries(self) -> list[Path]:
        """Everything that lies in it, the recipe first; not the lock, nor what a killed process left half written."""
        if not self.path.is_dir():
            return []
        found = [path for path in self.path.iterdir() if path.name != LOCK and not fnmatch(path.name, ".*.tmp")]
        return sorted(found, key=lambda path: (path.name != RECIPE, path.name))

    def _foreign(self) -> list[str]:
        """Things that no run writes."""
        found = []
        for folder, folders, files in os.walk(self.path):
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            paths = [os.path.relpath(os.path.join(folder, name), self.path) for name in [*files, *links]]
            found += [path for path in paths if not any(fnmatch(Path(path).as_posix(), known) for known in WRITTEN)]
        if self.recipe.is_file() and MADE_WITH not in self.read_recipe()[0]:
            found.append(f"{RECIPE} of yours")
        return sorted(found)

    def _has_weights(self) -> bool:
        return bool(self.checkpoints()) or any((self.path / name).exists() for name in ALL_WEIGHTS)

    @property
    def only_begun(self) -> bool:
        """True of a folder in which a run was ended before it had any weights; nothing else lies there."""
        if self.is_half_replaced or not self.path.is_dir():
            return self.is_half_replaced
        begun = self.recipe.is_file() or not self._entries()
        return begun and not self._has_weights() and not self._foreign()

    def check_free(self, overwrite: bool) -> None:
        """Makes sure that a new run can have this folder; removes nothing yet.

        Raises:
            RecipeError: it holds a run and overwriting was not asked for, or it holds other things.
        """
        if not self._entries():
            return
        if not overwrite:
            resumes = self.checkpoints() or self.only_begun
            resume = " To go on with it: --training.resume_from_checkpoint last." if resumes else ""
            raise RecipeError(
                f"training.output_dir: '{self}' is not empty, and nothing is overwritten without being asked."
                f"{resume} To start over: --training.overwrite. To keep it: another --training.output_dir."
            )
        foreign = self._foreign()
        if foreign or not (self.recipe.is_file() or self.checkpoints() or self.only_begun):
            raise RecipeError(
                f"training.overwrite: '{self}' does not look like a run folder"
                f"{f'; it holds {foreign[:5]}' if foreign else f' (no {RECIPE})'}. Nothing was removed; choose another "
                "--training.output_dir or empty it yourself."
            )

    def check_not_read(self, paths: Iterable[str | Path]) -> None:
        """Makes sure that nothing which is to be overwritten is read, be it through links.

        Raises:
            RecipeError: names what is read.
        """
        if not self._entries():
            return
        own = Path(os.path.realpath(self.path))

        @cache
        def leads_here(place: str) -> bool:
            return any(step.is_relative_to(own) for step in follow_links(place))

        def is_here(path: str) -> bool:
            """A plain file lies where its folder does, which is followed once for all its images."""
            return leads_here(os.path.dirname(path)) or ((islink(path) or isdir(path)) and leads_here(path))

        read = [str(path) for path in paths if is_here(os.path.expanduser(path))]
        if read:
            more = f" and {len(read) - 5} more" if len(read) > 5 else ""
            raise RecipeError(
                f"training.overwrite: '{self}' holds what the recipe reads: {', '.join(read[:5])}{more}. Nothing was "
                "removed; choose another --training.output_dir."
            )

    def make(self) -> bool:
        """Makes room for a new run, where `check_free` found nothing against it, and tells whether one was set aside.

        A run with weights goes into the folder `replaced`, see `forget_replaced`; other files go at once.

        Raises:
            RecipeError: the disk refuses it.
        """
        replaced, keeps = self.path / REPLACED, self.is_half_replaced
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self._has_weights() and not keeps:
                remove(replaced)
                replaced.mkdir()
                keeps = True
            for entry in self._entries():
                if keeps and entry != replaced:
                    entry.rename(replaced / entry.name)
                elif entry not in (replaced, self.recipe):  # which the new one takes the place of
                    remove(entry)
        except OSError as error:
            raise self._refused(error) from error
        return keeps

    def forget_replaced(self) -> None:
        """Removes the run that was set aside: the new one has weights."""
        remove(self.path / REPLACED)

    def sweep(self) -> None:
        """Removes what killed processes left half written; see `sweep_leftovers`."""
        for folder in (self.path, self.plots, self.plots / IMAGE_PLOTS, *self.checkpoints()):
            sweep_leftovers(folder)
        for path in self.path.glob(UNFINISHED.format(step="*")):
            remove(path)
