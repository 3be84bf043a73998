"""The `dvc` of this environment (setup.sh puts it into .venv/bin): DVC's own command, with a few things changed.

`dvc repro` runs stages that leave cores free side by side (flows.dvc_side_by_side), and what it notes of a stage goes
into `dvc.lock` without the notes of all others being written anew (flows.dvc_lock_file).

Whoever finds the lock of a project taken by another `dvc` waits; it is never held for long. DVC gives up after three
seconds, and a stage that has done hours of work is then not recorded.

DVC 3.67 writes `dvc.lock` in place, some tenths of a second long after every stage, and `.dvc/tmp/rwlock` before and
after. Killed in that time, or with the disk full, it leaves a part of the file, which it then refuses to read, and no
stage runs any more. Here what DVC writes goes into a file beside it, which then takes its name.

Where an output does not fit into DVC's cache, DVC says so, goes on, and ends as if all had gone well; here the stage
has failed then.

`--force` runs a stage anew also where its outputs stay in place while it runs (`persist`): they are removed first,
since a stage that finds its results there does nothing.

What a stage reads may lie elsewhere, behind links to folders inside `data/raw/<dataset>`: readers follow them, and so
does the digest of a dependency here. DVC passes such links over, and a stage would not notice what lies there. Outputs,
which it moves into its cache, are left as it takes them.

An archive of the project is no git repository, which DVC asks for: it is said how to make it one.

Stages that are Prefect flows start a Prefect server, which `dvc repro` stops at its end unless something else uses it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its name at the end; without an end the old content stays."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_aside(write: Callable[..., None]) -> Callable[..., None]:
    """`write(path, data, ...)`, but `path` keeps its old content until the new one is whole."""

    def write_whole(path: str | os.PathLike[str], *arguments: Any, **options: Any) -> None:
        with whole(Path(path)) as aside:
            write(os.fspath(aside), *arguments, **options)

    return write_whole


def all_of_it(transfer: Callable[..., Any]) -> Callable[..., Any]:
    """`transfer(...)` into a cache, but what could not be copied is an error."""

    def transfer_all(*arguments: Any, **options: Any) -> Any:
        from dvc.exceptions import DvcException

        result = transfer(*arguments, **options)
        if result.failed:
            raise DvcException(
                f"{len(result.failed)} files could not be copied into DVC's cache (above: why), and their stage is not "
                "recorded. They are still there: make room, and `dvc commit -f <stage>` records them; "
                "`dvc repro` would compute them again"
            )
        return result

    return transfer_all


def anew_when_forced(run: Callable[..., None]) -> Callable[..., None]:
    """`run(stage, ...)`, but where it is forced no output stays in place."""

    def run_anew(stage: Any, *, force: bool = False, dry: bool = False, **options: Any) -> None:
        if force and not dry and stage.cmd and not stage.frozen:
            stage.remove_outs(force=True)
        run(stage, force=force, dry=dry, **options)

    return run_anew


class WritesAside:
    """A file system of DVC's whose files keep their old content until the new one is whole."""

    def __init__(self, files: Any) -> None:
        self._files = files

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    @contextmanager
    def open(self, path: str, mode: str = "r", **options: Any) -> Iterator[Any]:
        if "w" in mode:
            with whole(Path(path)) as aside, self._files.open(os.fspath(aside), mode, **options) as file:
                yield file
        else:
            with self._files.open(path, mode, **options) as file:
                yield file


class ThroughLinks:
    """DVC's filter of ignored files, which also walks through folders, but through links to folders as well."""

    def __init__(self, ignored: Any) -> None:
        self._ignored = ignored

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ignored, name)

    def walk(self, _: Any, top: str) -> Iterator[tuple[str, list[str], list[str]]]:
        """Folders from `top` on with the names of folders and files in them, without what is ignored.

        A link back to a folder on the way to it is not followed, so that a circle has an end. Where two links lead
        to one folder its files are found under both names, as by a reader that opens them by name.
        """
        on_the_way = {top: frozenset([os.path.realpath(top)])}
        for folder, folders, files in os.walk(top, followlinks=True):
            passed = on_the_way.pop(folder)
            there, files = self._ignored(folder, list(folders), files)
            folders.clear()
            for name in there:
                path = f"{folder}{os.sep}{name}"
                if (place := os.path.realpath(path)) not in passed:
                    folders.append(name)
                    on_the_way[path] = passed | {place}
            yield folder, folders, files


def through_links(ignored: property) -> property:
    """The filter that a dependency's files are found with, but through links."""

    def follow(dependency: Any) -> ThroughLinks | None:
        found = ignored.__get__(dependency)
        return None if found is None else ThroughLinks(found)

    return property(follow)


def main(arguments: list[str] | None = None) -> int:
    """Run DVC with `arguments`, those of the command line by default; returns its exit status."""
    # -P leaves the project out of the path. Last in it, its folders hide no package.
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from dvc import output, rwlock
    from dvc.cli import main as dvc
    from dvc.dependency import Dependency
    from dvc.repo import reproduce
    from dvc.stage import Stage
    from dvc.utils.serialize import _common, _yaml

    from flows import process
    from flows.dvc_lock_file import stage_by_stage
    from flows.dvc_side_by_side import side_by_side
    from pipeline.process import die_with_parent

    die_with_parent()
    # Commands of stages find the `python` of this environment, whether it is activated or not.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    # DVC runs commands by the user's shell, without one by sh, which on Debian stays between DVC and the command: when
    # DVC is killed the command does not notice (pipeline.process.die_with_parent). Bash makes way for it.
    if bash := shutil.which("bash"):
        os.environ["SHELL"] = bash
    reproduce._reproduce = side_by_side(reproduce._reproduce)
    # Both ways to a YAML file: as a whole, and modified.
    _common._dump_data = _yaml._dump_data = write_aside(_common._dump_data)
    _yaml._modify_data = stage_by_stage(_yaml._modify_data)
    Stage.run = anew_when_forced(Stage.run)
    Dependency.dvcignore = through_links(output.Output.dvcignore)
    output.otransfer = all_of_it(output.otransfer)
    edit = rwlock._edit_rwlock

    def edit_whole(folder: str, files: Any, hardlink: bool) -> AbstractContextManager[Any]:
        return edit(folder, WritesAside(files), hardlink)

    rwlock._edit_rwlock = edit_whole
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        status = dvc(["--wait-for-lock", *arguments])
        here = Path.cwd()
        if status and not any((folder / ".git").exists() for folder in (here, *here.parents)):
            print("This is no git repository, which DVC asks for unless told otherwise: `git init` here makes it one.")
        return status
    finally:
        if "repro" in arguments:
            process.stop_idle_server()


if __name__ == "__main__":
    sys.exit(main())
