"""Compressed arrays that can not be read, which Python tells with other errors than it has for most damage."""

from __future__ import annotations


def damaged(whole: bytes) -> list[bytes]:
    """An npz of compressed arrays with one byte of its first array changed, in three ways.

    Places in the headers are those of the ZIP format (APPNOTE.TXT, 4.3.7 and 4.3.12).
    """
    data = 30 + int.from_bytes(whole[26:28], "little") + int.from_bytes(whole[28:30], "little")
    entry = whole.index(b"PK\x01\x02")
    changes = [
        (data, 0xFF),  # zlib.error: no such kind of block
        (entry + 10, 77),  # NotImplementedError: no such method
        (entry + 8, whole[entry + 8] | 1),  # RuntimeError: locked by a password
    ]
    return [whole[:place] + bytes([value]) + whole[place + 1 :] for place, value in changes]
