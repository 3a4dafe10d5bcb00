"""The peer of a mount: QEMU's microvm machine with Debian's virtiofsd, and the same guest kernel.

usage: qemu_fs.py QEMU KERNEL PROGRAM MIB FOLDER SHARED CACHE WORDS

Starts virtiofsd over SHARED with that cache mode, and a guest whose one program is PROGRAM (spec/perf/fs_load.c, static) as
its init; prints the lines `NAME MICROSECONDS UNITS` that it says on its console.  QEMU_ACCEL=tcg where there is no KVM.
"""
import os
import signal
import subprocess
import sys

qemu, kernel, program, mib, folder, shared, cache, words = sys.argv[1:]
SECONDS = int(os.environ.get("QEMU_SECONDS", "150"))
DAEMONS = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"]


def cpio(name, data, mode, number, device=(0, 0)):
    """One member of a newc archive."""
    fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def daemon(path):
    found = [each for each in DAEMONS if os.access(each, os.X_OK)]
    if not found:
        sys.exit("no virtiofsd: install qemu-system-common (Debian 12) or virtiofsd (Debian 13)")
    if found[0].startswith("/usr/lib/qemu"):
        argv = [found[0], "-f", "-o", "sandbox=chroot", "-o", "log_level=info", "-o", "source=" + shared,
                "-o", "cache=" + cache, "-o", "xattr"]
    else:
        argv = [found[0], "--sandbox=chroot", "--log-level=info", "--shared-dir=" + shared, "--cache=" + cache, "--xattr"]
    process = subprocess.Popen(argv + ["--thread-pool-size=0", "--socket-path=" + path], stderr=subprocess.PIPE,
                               stdin=subprocess.DEVNULL)
    said = b""
    for line in process.stderr:  # it says when it listens
        said += line
        if b"aiting for" in line and b"connection" in line:
            return process
    sys.exit("virtiofsd ended: %r" % said[-400:])


def main():
    initrd, path = os.path.join(folder, "initrd"), os.path.join(folder, "fs.sock")
    with open(program, "rb") as source, open(initrd, "wb") as archive:
        archive.write(cpio(b"dev", b"", 0o040755, 1)
                      + cpio(b"dev/console", b"", 0o020600, 3, (5, 1)) + cpio(b"init", source.read(), 0o100755, 2)
                      + cpio(b"TRAILER!!!", b"", 0, 3))
    server = daemon(path)
    accel = os.environ.get("QEMU_ACCEL", "kvm")
    signal.alarm(SECONDS)
    guest = subprocess.Popen(
        [qemu, "-M", "microvm,memory-backend=ram", "-accel", accel, "-cpu", "host" if accel == "kvm" else "max",
         "-m", mib, "-smp", "1", "-object", "memory-backend-memfd,id=ram,size=%sM,share=on" % mib,
         "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
         "-global", "virtio-mmio.force-legacy=false", "-serial", "stdio",
         "-kernel", kernel, "-initrd", initrd,
         "-append", "console=ttyS0 reboot=t panic=-1 rdinit=/init fs_load=" + words,
         "-chardev", "socket,id=fs,path=" + path, "-device", "vhost-user-fs-device,chardev=fs,tag=fs"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, ended = [], False
    try:
        for line in guest.stdout:
            text = line.decode(errors="replace").strip()
            said.append(text)
            if text == "end":
                ended = True
                break
            if len(text.split()) == 3 and text.split()[1].replace(".", "").isdigit():
                print(text, flush=True)
    finally:
        guest.kill()
        server.kill()
        guest.wait()
        server.wait()
    if not ended:
        sys.exit("the guest: " + " | ".join(said[-10:]))


main()
