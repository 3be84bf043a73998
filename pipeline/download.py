"""Files that answer without an account -> data/raw/<dataset>: resumed, checked, unpacked.

What sits behind a form or a licence is the user's to fetch; the dataset's SOURCE.md says how.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import lzma
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path, PurePosixPath

from pipeline.datasets.source import Access, Source, SourceFile

log = logging.getLogger(__name__)

CHUNK = 1 << 20
SIZE_TOLERANCE = 0.2
"""A file whose size differs by more than this share from the known one is not the file."""
NOTHING_FOLLOWS = 416
"""What a server answers who is asked for bytes behind the end of a file."""
FOR_GOOD = (401, 403, 404, 410, 451)
"""Answers of a server that stay: no access, not there, gone, not in this country."""

Progress = Callable[[int, int], None]
"""Called with (bytes there, bytes in all; 0 when the server does not say)."""


class DownloadError(ValueError):
    """A file can not be had, or is not what it should be; the message names file and address."""


class LastingError(DownloadError):
    """It would be the same again in a few minutes: the file is gone from the server, say, or the disk is full."""


BY_HAND: dict[Access, str] = {
    "anonymous": "no account is needed, but its files are to be fetched by hand",
    "form": "its owner asks for a form or an account first",
    "generated": "it is rendered, and lies nowhere to be fetched",
}
"""Why nothing of a dataset can be fetched."""


def open_files(source: Source, dataset: str) -> tuple[SourceFile, ...]:
    """Files of a dataset that can be fetched without an account; DownloadError that says what to do if none can."""
    files = tuple(file for file in source.files if file.url is not None)
    if not files:
        raise DownloadError(f"{dataset}: {BY_HAND[source.access]}. {source.how} {source.homepage}")
    return files


def fetch(file: SourceFile, folder: Path, progress: Progress | None = None) -> Path:
    """Download one file into `folder` unless it is there; returns its path.

    A broken download goes on where it stopped. Raises DownloadError; but for LastingError, it makes sense to try again.
    """
    target = folder / file.name
    if target.is_file():
        if file.md5 and (found := md5(target)) != file.md5:
            raise LastingError(f"{target}: other bytes than are known: MD5 {found}, expected {file.md5}; delete it")
        return target
    if file.url is None:
        raise LastingError(f"{file.name}: only its owner hands it out; see {folder / 'SOURCE.md'}")
    if not file.url.startswith(("https://", "http://")):
        raise LastingError(f"{file.name}: {file.url} is no web address")
    folder.mkdir(parents=True, exist_ok=True)
    # Hidden, so that an unfinished download is not taken for real data.
    part = folder.with_name(f".{folder.name}.{target.name}.part")
    there = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={there}-"} if there else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            resumed = there > 0 and answer.status == 206
            done = there if resumed else 0
            length = int(answer.headers.get("Content-Length") or 0)
            total = done + length if length else 0
            with part.open("ab" if resumed else "wb") as out:
                while block := answer.read(CHUNK):
                    out.write(block)
                    done += len(block)
                    if progress:
                        progress(done, total)
    except (urllib.error.URLError, HTTPException, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):  # not the server's fault
            raise LastingError(f"{part}: {error.strerror}. Make room and try again: what has come is kept") from error
        if isinstance(error, urllib.error.HTTPError) and error.code in FOR_GOOD:
            raise LastingError(
                f"{file.name}: {file.url} answers {error.code} ({error.reason}); fetch the file by hand, "
                f"{folder / 'SOURCE.md'} says where from"
            ) from error
        if not (there and isinstance(error, urllib.error.HTTPError) and error.code == NOTHING_FOLLOWS):
            raise DownloadError(f"{file.name}: {file.url} does not answer as expected ({error}); try again") from error
        if error.headers.get("Content-Range") != f"bytes */{there}":  # the end of another file, or it does not say
            part.unlink()
            return fetch(file, folder, progress)
        done = total = there
    if total and done != total:
        raise DownloadError(f"{file.name}: {done} of {total} bytes came from {file.url}; try again")
    if file.megabytes and abs(done / 1e6 - file.megabytes) > SIZE_TOLERANCE * file.megabytes + 1:
        part.unlink()
        raise LastingError(f"{file.name}: {file.url} gave {done / 1e6:.0f} MB, expected about {file.megabytes} MB")
    if file.md5 and (found := md5(part)) != file.md5:
        part.unlink()
        if there:  # what it went on from was the beginning of another file, or damaged
            return fetch(file, folder, progress)
        raise LastingError(f"{file.name}: {file.url} gave other bytes than are known: MD5 {found}, expected {file.md5}")
    part.replace(target)
    return target


def md5(path: Path) -> str:
    """Hex digest of a file: tells whether two have the same release, not whether somebody wished it well."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive below `folder`; nothing is written outside it.

    Raises DownloadError when the archive is damaged, or of another kind.
    """
    aside = folder.with_name(f".{folder.name}.{archive.name}.unpacked")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as content:
                content.extractall(aside)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as content:
                _unpack_tar(content, aside)
        else:
            raise DownloadError(f"{archive}: neither a zip nor a tar archive")
        shutil.copytree(aside, folder, dirs_exist_ok=True, copy_function=shutil.move)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the machine; gzip's and bzip2's own have none
            raise
        raise DownloadError(f"{archive}: damaged ({error}); delete it and download it again") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _unpack_tar(content: tarfile.TarFile, folder: Path) -> None:
    """Folders and files, a link as a copy of the file it names; nothing that leads out of `folder`.

    Python's own filter for that came with 3.11.4, and Debian 12 has 3.11.2.
    """
    for member in content:
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts:
            raise tarfile.TarError(f"{member.name!r} lies outside the archive's folder")
        target = folder / name
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        try:
            packed = content.extractfile(member)
        except (KeyError, RecursionError):  # a link to nothing, links in a circle
            packed = None
        if packed is None:
            raise tarfile.TarError(f"{member.name!r} is neither a file nor a folder, nor a link to a file beside it")
        target.parent.mkdir(parents=True, exist_ok=True)
        with packed, target.open("wb") as out:
            shutil.copyfileobj(packed, out, CHUNK)
    # The checksum of a compressed archive stands behind what a reader of tars has any need of.
    while content.fileobj is not None and content.fileobj.read(CHUNK):
        pass
