"""Judges a log of ours with pymerkle: the root over its records at every checkpoint.

merkle_judge.py FOLDER: one line on standard output, exit code 0; or why not on standard error, exit code 1. It checks
no signatures. The reading of segments here is from their description, and shares nothing with ours.
"""

import base64
import importlib.metadata
import pathlib
import struct
import sys

from pymerkle import InmemoryTree

HEADER_BYTES = 64


def records(folder):
    for segment in sorted(folder.glob("*.segment")):
        data, at = segment.read_bytes(), HEADER_BYTES
        while len(data) - at >= 8:
            length, _checksum = struct.unpack_from("<II", data, at)
            if length == 0:
                break
            yield data[at + 8 : at + 8 + length]
            at += 8 + length


def heads(folder):
    for block in (folder / "checkpoints").read_text().split("\n\n")[::2]:
        if block:
            _name, size, root = block.split("\n")[:3]
            yield int(size), base64.b64decode(root)


def main():
    folder = pathlib.Path(sys.argv[1])
    tree = InmemoryTree(algorithm="sha256")
    count = 0
    for record in records(folder):
        tree.append_entry(record)
        count += 1
    checked = 0
    for size, root in heads(folder):
        if size > count or tree.get_root(size) != root:
            sys.exit(f"the root over {size} records is another")
        checked += 1
    print(f"pymerkle {importlib.metadata.version('pymerkle')}: {count} records, {checked} checkpoints")


main()
