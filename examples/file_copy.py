"""Copy a file through a workspace to a worker, block by block, while it is being read."""

import tempfile
from pathlib import Path

from sleighexec import Sleigh

BLOCK_BYTES = 64 * 1024


def send(path):
    """Store the file's blocks, and an empty one that says that this was all."""
    with open(path, "rb") as file:
        while s.userNws.storeFile("block", file, n=BLOCK_BYTES):
            pass
    s.userNws.store("block", b"")


def receive(path):
    """Write blocks to a file until the empty one comes; how many there were."""
    blocks = 0
    with open(path, "wb") as file:
        while SleighUserNws.fetchFile("block", file):  # waits for the next one
            blocks += 1
    return blocks


with Sleigh(workerCount=1) as s, tempfile.TemporaryDirectory() as folder:
    original, copy = Path(folder, "original"), Path(folder, "copy")
    original.write_bytes(bytes(range(256)) * 4000)
    receiving = s.eachWorker(receive, copy, blocking=False)
    send(original)
    print(receiving.wait(), "blocks")
    same = copy.read_bytes() == original.read_bytes()
    print(copy.stat().st_size, "bytes, the same:", same)

# prints: [16] blocks
# prints: 1024000 bytes, the same: True
