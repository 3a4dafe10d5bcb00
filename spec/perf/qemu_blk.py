"""The peer of a volume: the same guest with the same disk in QEMU's microvm machine, cache=writeback and an I/O thread.

usage: qemu_blk.py QEMU KERNEL INITRD DISK MIB VOLUME FOLDER CMDLINE ARGV...

Boots it, waits for its agent, has that run ARGV, and prints what it says.  Source: src/agent/protocol.h.
"""
import os
import signal
import socket
import struct
import subprocess
import sys

qemu, kernel, initrd, disk, mib, volume, folder, cmdline = sys.argv[1:9]
CID, PORT = 4, 1024
VERSION, OPEN, BODY, EXEC, ERROR, STDOUT, STDERR, EXIT = 2, 1, 2, 1, 34, 36, 37, 40
signal.alarm(200)  # whatever hangs


def text(value):
    return struct.pack("<I", len(value)) + value


def frame(kind, payload):
    return struct.pack("<IHH", len(payload), kind, 0) + payload


def receive(connection, count):
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            sys.exit("the agent hung up")
        data += piece
    return data


def run(argv):
    body = struct.pack("<IHHI", 0, 0, 0, 0) + text(b"") + text(b"") + struct.pack("<II", 0, len(argv))
    body += b"".join(text(word.encode()) for word in argv)
    body += struct.pack("<I", 1) + text(b"PATH=/usr/local/bin:/bin:/usr/bin:/sbin:/usr/sbin")
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as connection:
        connection.connect((CID, PORT))
        connection.sendall(frame(OPEN, struct.pack("<HHI", VERSION, EXEC, len(body))) + frame(BODY, body))
        while True:
            length, kind, _ = struct.unpack("<IHH", receive(connection, 8))
            payload = receive(connection, length)
            if kind == STDOUT:
                sys.stdout.buffer.write(payload)
            elif kind == STDERR:
                sys.stderr.buffer.write(payload)
            elif kind == ERROR:
                sys.exit("the agent: %r" % payload)
            elif kind == EXIT:
                return struct.unpack("<II", payload[:8])


with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as listener:
    listener.bind((socket.VMADDR_CID_ANY, PORT))
    listener.listen(1)
    with open(os.path.join(folder, "qemu.log"), "w") as log:
        machine = subprocess.Popen(
            [qemu, "-M", "microvm,accel=kvm", "-cpu", "host", "-m", mib, "-smp", "1",
             "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
             "-global", "virtio-mmio.force-legacy=false", "-serial", "file:" + os.path.join(folder, "console"),
             "-kernel", kernel, "-initrd", initrd, "-append", cmdline,
             "-drive", "id=disk,if=none,format=raw,readonly=on,file=" + disk,
             "-device", "virtio-blk-device,drive=disk",
             "-object", "iothread,id=io",
             "-drive", "id=volume,if=none,format=raw,cache=writeback,aio=threads,discard=unmap,file=" + volume,
             "-device", "virtio-blk-device,drive=volume,iothread=io",
             "-device", "vhost-vsock-device,guest-cid=%d" % CID],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        hello, _ = listener.accept()
        receive(hello, 8)
        hello.close()
        ended = run(sys.argv[9:])
    finally:
        machine.kill()
        machine.wait()
if ended != (0, 0):
    sys.exit("ended with %d, signal %d" % ended)
