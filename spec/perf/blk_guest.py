"""What a guest does with the disk in argv[1], a raw one of 64 MiB: prints `NAME MILLISECONDS`, a line each, a MiB or an
operation.  O_DIRECT: each is a request of its own."""
import mmap
import os
import random
import sys
import time

RUNS, MIB, BLOCK, SIZE = int(sys.argv[2]), 1 << 20, 4096, 64 << 20
disk = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
large, small = mmap.mmap(-1, MIB), mmap.mmap(-1, BLOCK)
large.write(os.urandom(BLOCK) * (MIB // BLOCK))
small.write(os.urandom(BLOCK))


def measure(name, count, operation):
    start = time.monotonic()
    for i in range(count):
        operation(i)
    print("%s %.4f" % (name, (time.monotonic() - start) * 1000 / count), flush=True)


def anywhere():
    return random.randrange(SIZE // BLOCK) * BLOCK


def flush(i):
    os.pwritev(disk, [small], anywhere())
    os.fdatasync(disk)


random.seed(1)
for run in range(RUNS + 1):  # the first is to get everything into the caches, and is not counted
    prefix = "blk." if run else "cold."
    measure(prefix + "write", 32, lambda i: os.pwritev(disk, [large], i * MIB))
    measure(prefix + "read", 32, lambda i: os.preadv(disk, [large], i * MIB))
    measure(prefix + "write.4k", 128, lambda i: os.pwritev(disk, [small], anywhere()))
    measure(prefix + "read.4k", 128, lambda i: os.preadv(disk, [small], anywhere()))
    measure(prefix + "flush", 32, flush)
