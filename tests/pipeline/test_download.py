"""Downloads against a real HTTP server on the loopback address."""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline import datasets
from pipeline.datasets import SourceFile
from pipeline.download import DownloadError, LastingError, fetch, open_files, unpack

CONTENT = bytes(range(256)) * 5000


class Host(BaseHTTPRequestHandler):
    """CONTENT, from where a Range header asks; `/broken` promises more than it gives, `/silent` hides its size."""

    def do_GET(self) -> None:
        if self.path in ("/404", "/503"):
            self.server.starts.append(0)  # type: ignore[attr-defined]
            self.send_error(int(self.path[1:]))
            return
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.server.starts.append(start)  # type: ignore[attr-defined]
        body = CONTENT[start:]
        if not body:
            self.send_response(416)
            if self.path != "/silent":
                self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path == "/broken" else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    server.starts = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def source(host: ThreadingHTTPServer, path: str = "whole", megabytes: int | None = None) -> SourceFile:
    return SourceFile(name="a.bin", url=f"http://127.0.0.1:{host.server_port}/{path}", megabytes=megabytes)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
def test_a_full_disk_is_not_the_servers_fault(host: ThreadingHTTPServer, tmp_path: Path) -> None:
    (tmp_path / ".coco.a.bin.part").symlink_to("/dev/full")
    with pytest.raises(LastingError, match=r"\.coco\.a\.bin\.part: No space left on device\. Make room and try again"):
        fetch(source(host), tmp_path / "coco")


def test_a_broken_download_goes_on_where_it_stopped(host: ThreadingHTTPServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"a.bin: .* try again"):
        fetch(source(host, "broken"), tmp_path / "coco")
    assert not (tmp_path / "coco" / "a.bin").exists()
    seen: list[tuple[int, int]] = []
    target = fetch(source(host), tmp_path / "coco", lambda done, total: seen.append((done, total)))
    assert target.read_bytes() == CONTENT
    assert host.starts == [0, len(CONTENT) // 2]  # type: ignore[attr-defined]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    fetch(source(host), tmp_path / "coco")
    assert len(host.starts) == 2, "a file that is there is not fetched again"  # type: ignore[attr-defined]


def test_an_unfinished_download_is_not_taken_for_real_data(host: ThreadingHTTPServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadError):
        fetch(source(host, "broken"), tmp_path / "coco")
    assert list((tmp_path / "coco").iterdir()) == []


@pytest.mark.parametrize(
    ("path", "there", "starts"),
    [
        ("whole", CONTENT, [len(CONTENT)]),
        ("whole", bytes(len(CONTENT) + 1), [len(CONTENT) + 1, 0]),
        ("silent", CONTENT, [len(CONTENT), 0]),
    ],
)
def test_a_download_that_was_stopped_at_its_end_is_taken_or_begun_afresh(
    path: str, there: bytes, starts: list[int], host: ThreadingHTTPServer, tmp_path: Path
) -> None:
    (tmp_path / ".coco.a.bin.part").write_bytes(there)
    assert fetch(source(host, path), tmp_path / "coco").read_bytes() == CONTENT
    assert host.starts == starts  # type: ignore[attr-defined]
    assert [entry.name for entry in tmp_path.rglob("*")] == ["coco", "a.bin"]


def test_a_dead_link_is_told_from_a_server_that_is_busy(host: ThreadingHTTPServer, tmp_path: Path) -> None:
    says = r"a.bin: http.*/404 answers 404 \(Not Found\); fetch the file by hand, .*coco/SOURCE.md says where from"
    with pytest.raises(LastingError, match=says):
        fetch(source(host, "404"), tmp_path / "coco")
    with pytest.raises(DownloadError, match=r"503.*try again") as busy:
        fetch(source(host, "503"), tmp_path / "coco")
    assert not isinstance(busy.value, LastingError)


def test_a_page_in_place_of_the_file_is_refused(host: ThreadingHTTPServer, tmp_path: Path) -> None:
    with pytest.raises(LastingError, match="gave 1 MB, expected about 500 MB"):
        fetch(source(host, megabytes=500), tmp_path)


def test_other_bytes_than_are_known_are_refused(host: ThreadingHTTPServer, tmp_path: Path) -> None:
    known = hashlib.md5(CONTENT).hexdigest()
    other = replace(source(host), md5="0" * 32)
    with pytest.raises(LastingError, match=f"gave other bytes than are known: MD5 {known}, expected 000"):
        fetch(other, tmp_path / "coco")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    # The end of this file behind the beginning of another.
    (tmp_path / ".coco.a.bin.part").write_bytes(bytes(1000))
    assert fetch(replace(other, md5=known), tmp_path / "coco").read_bytes() == CONTENT
    assert host.starts == [0, 1000, 0]  # type: ignore[attr-defined]
    (tmp_path / "coco/a.bin").write_bytes(b"fetched by hand, in part")
    with pytest.raises(LastingError, match=r"a\.bin: other bytes than are known: .*; delete it"):
        fetch(replace(other, md5=known), tmp_path / "coco")


def test_a_file_behind_a_form_says_where_to_read_on(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"only its owner hands it out; see .*SOURCE.md"):
        fetch(SourceFile(name="a.bin"), tmp_path)


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        ("aist", r"aist: its owner asks for a form or an account first. Accept the terms .*/10M/<name>.mp4"),
        ("interhand", r"interhand: no account is needed, but its files are to be fetched by hand. Download"),
        ("synthetic", r"synthetic: it is rendered, and lies nowhere to be fetched. `python -m"),
    ],
)
def test_a_dataset_that_can_not_be_fetched_says_why_and_what_to_do(dataset: str, says: str) -> None:
    with pytest.raises(DownloadError, match=says):
        open_files(datasets.get(dataset).source, dataset)


@pytest.mark.parametrize("name", datasets.names())
def test_a_dataset_is_fetched_whole_or_not_at_all(name: str) -> None:
    """Part of a dataset would be taken for the real data, and nothing that needs it would run."""
    files = datasets.get(name).source.files
    assert len({file.url is None for file in files}) <= 1
    assert not any("<" in (file.url or "") for file in files)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_is_unpacked_beside_what_is_there(kind: str, tmp_path: Path) -> None:
    archive, folder = tmp_path / f"a.{kind}", tmp_path / "coco"
    folder.mkdir()
    (folder / "SOURCE.md").write_text("here before")
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as out:
            out.writestr("train2017/1.jpg", b"jpeg")
    else:
        with tarfile.open(archive, "w") as out:
            image = tarfile.TarInfo("train2017/1.jpg")
            image.size = 4
            out.addfile(image, io.BytesIO(b"jpeg"))
    unpack(archive, folder)
    assert sorted(path.name for path in folder.rglob("*")) == ["1.jpg", "SOURCE.md", "train2017"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{kind}", "coco"]


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_compressed_archive_with_other_bytes_is_never_taken_for_whole(kind: str, tmp_path: Path) -> None:
    noise = random.Random(0)
    body, archive = noise.randbytes(100_000) + bytes(100_000), tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("1.jpg", body)
    else:
        with tarfile.open(archive, f"w:{kind[4:]}") as out:  # type: ignore[call-overload]
            image = tarfile.TarInfo("1.jpg")
            image.size = len(body)
            out.addfile(image, io.BytesIO(body))
    whole = archive.read_bytes()
    for _ in range(20):
        place = noise.randrange(100, len(whole) - 100)
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with pytest.raises(DownloadError, match=r"damaged|neither a zip nor a tar"):
            unpack(archive, tmp_path / "coco")
        assert list(tmp_path.glob("coco/*")) == []
    archive.write_bytes(whole)
    unpack(archive, tmp_path / "coco")
    assert (tmp_path / "coco/1.jpg").read_bytes() == body


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("compression", ["", ":gz"])
def test_a_link_in_an_archive_becomes_a_copy_of_what_it_names(kind: bytes, compression: str, tmp_path: Path) -> None:
    archive, file, link = tmp_path / "a.tar", tarfile.TarInfo("d/1.jpg"), tarfile.TarInfo("d/2.jpg")
    file.size, link.type = 4, kind
    link.linkname = "1.jpg" if kind == tarfile.SYMTYPE else "d/1.jpg"  # from where it lies; from the top
    with tarfile.open(archive, f"w{compression}") as out:  # type: ignore[call-overload]
        out.addfile(file, io.BytesIO(b"jpeg"))
        out.addfile(link)
    unpack(archive, tmp_path / "coco")
    found = tmp_path / "coco/d/2.jpg"
    assert found.read_bytes() == b"jpeg" and not found.is_symlink()


def entry(name: str, kind: bytes = tarfile.REGTYPE, linkname: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linkname
    return info


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([entry("../evil")], "lies outside"),
        ([entry("a/../../evil")], "lies outside"),
        ([entry("/evil")], "lies outside"),
        ([entry("out", tarfile.SYMTYPE, ".."), entry("out/evil")], "neither a file"),
        ([entry("out", tarfile.SYMTYPE, "/etc/passwd")], "neither a file"),
        ([entry("out", tarfile.LNKTYPE, "../secret")], "neither a file"),
        ([entry("a", tarfile.SYMTYPE, "b"), entry("b", tarfile.SYMTYPE, "a")], "neither a file"),
        ([entry("pipe", tarfile.FIFOTYPE)], "neither a file"),
        ([entry("disk", tarfile.BLKTYPE)], "neither a file"),
    ],
)
def test_an_archive_can_not_reach_outside_its_folder(entries: list[tarfile.TarInfo], says: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of somebody else")
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as out:
        for info in entries:
            out.addfile(info)
    with pytest.raises(DownloadError, match=f"damaged .*{says}"):
        unpack(archive, tmp_path / "coco")
    assert {path.name for path in tmp_path.iterdir()} <= {"a.tar", "secret", "coco"}
    assert list(tmp_path.glob("coco/*")) == []
