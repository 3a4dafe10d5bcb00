# mount_bench.py PHASE: work in the current folder as programs do, and say how many seconds it took.
import os, sys, time

def walk():
    count = 0
    for top, _, names in os.walk("tree"):
        for name in names:
            os.stat(top + "/" + name)
            count += 1
    assert count == 4000, count

def small():
    os.mkdir("small")
    for i in range(1000):
        with open("small/%d" % i, "xb") as f:
            f.write(b"x" * 1000)
    for i in range(1000):
        with open("small/%d" % i, "rb") as f:
            assert len(f.read()) == 1000
    for i in range(1000):
        os.unlink("small/%d" % i)
    os.rmdir("small")

def read():
    with open("big", "rb", buffering=0) as f:
        total = 0
        while data := f.read(1 << 20):
            total += len(data)
    assert total == 256 << 20, total

def write():
    block = b"w" * (1 << 20)
    with open("written", "wb", buffering=0) as f:
        for _ in range(128):
            assert f.write(block) == len(block)
    os.unlink("written")

begun = time.monotonic()
globals()[sys.argv[1]]()
print("seconds", time.monotonic() - begun)
