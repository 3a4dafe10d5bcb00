"""The peer of a restore: QEMU's microvm machine, restored from a file by its own migration.

usage: qemu_restore.py QEMU KERNEL INITRD DISK MIB RUNS FOLDER CMDLINE

Boots the guest once with its RAM in a file (memory-backend-file, share=on), waits for its agent, and migrates it to a
file without the RAM (x-ignore-shared).  Then, RUNS times: a QEMU is started with `-incoming defer` over a fresh copy of
the RAM, and timed from migrate-incoming until the agent, asked by vsock to run `true`, has said its exit code.
Prints milliseconds, a line each.  Sources: docs/interop/qmp-spec, docs/devel/migration of QEMU; src/agent/protocol.h.
"""
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

qemu, kernel, initrd, disk, mib, runs, folder, cmdline = sys.argv[1:]
CID, PORT = 3, 1024
APART_SECONDS = 0.1
VERSION, OPEN, BODY, EXEC, EXIT, ERROR = 2, 1, 2, 1, 40, 34
signal.alarm(180)  # whatever hangs


def text(value):
    return struct.pack("<I", len(value)) + value


def frame(kind, payload):
    return struct.pack("<IHH", len(payload), kind, 0) + payload


def exec_request():
    body = struct.pack("<IHHI", 0, 0, 0, 0) + text(b"") + text(b"") + struct.pack("<I", 0)
    body += struct.pack("<I", 1) + text(b"true") + struct.pack("<I", 1) + text(b"PATH=/bin:/usr/bin:/sbin:/usr/sbin")
    return frame(OPEN, struct.pack("<HHI", VERSION, EXEC, len(body))) + frame(BODY, body)


def receive(connection, count):
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionResetError
        data += piece
    return data


def frames(data):
    """The whole frames in it, and what is left."""
    found = []
    while len(data) >= 8:
        length, kind, _ = struct.unpack("<IHH", data[:8])
        if len(data) < 8 + length:
            break
        found.append((kind, data[8:8 + length]))
        data = data[8 + length:]
    return found, data


class Attempt:
    """To have `true` run over one connection.  The guest forgets those of its life before without a word, and one that
    comes too early is one of them."""
    def __init__(self):
        self.data, self.sent = b"", False
        self.socket = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.connect_ex((CID, PORT))

    def step(self):
        """True: it has ended well.  Raises where the connection is lost."""
        if not self.sent:
            code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, "connect")
            self.socket.sendall(exec_request())
            self.sent = True
            return False
        piece = self.socket.recv(65536)
        if not piece:
            raise ConnectionResetError
        found, self.data = frames(self.data + piece)
        for kind, payload in found:
            if kind == ERROR:
                sys.exit("the agent: %r" % payload)
            if kind == EXIT:
                code, died = struct.unpack("<II", payload[:8])
                if (code, died) != (0, 0):
                    sys.exit("true ended with %d, signal %d" % (code, died))
                return True
        return False


def answer():
    """One attempt after the other, without giving up those before: whichever is answered first."""
    poller, attempts, due = select.poll(), {}, time.monotonic()
    while True:
        now = time.monotonic()
        if now >= due:
            attempt = Attempt()
            attempts[attempt.socket.fileno()] = attempt
            poller.register(attempt.socket, select.POLLOUT)
            due = now + APART_SECONDS
        for fd, _ in poller.poll((due - now) * 1000 + 1):
            try:
                if attempts[fd].step():
                    for each in attempts.values():
                        each.socket.close()
                    return
                poller.modify(fd, select.POLLIN)
            except OSError:
                poller.unregister(fd)
                due = min(due, time.monotonic() + 0.005)


class Machine:
    def __init__(self, ram, *more):
        path = os.path.join(folder, "qmp")
        if os.path.exists(path):
            os.unlink(path)
        with open(os.path.join(folder, "qemu.log"), "a") as log:
            self.process = subprocess.Popen(
                [qemu, "-M", "microvm,accel=kvm,memory-backend=ram", "-cpu", "host", "-m", mib, "-smp", "1",
                 "-object", "memory-backend-file,id=ram,size=%sM,mem-path=%s,share=on" % (mib, ram),
                 "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                 "-global", "virtio-mmio.force-legacy=false",
                 "-serial", "file:" + os.path.join(folder, "console"),
                 "-kernel", kernel, "-initrd", initrd, "-append", cmdline,
                 "-drive", "id=disk,if=none,format=raw,readonly=on,file=" + disk,
                 "-device", "virtio-blk-device,drive=disk",
                 "-device", "vhost-vsock-device,guest-cid=%d" % CID,
                 "-qmp", "unix:%s,server=on,wait=off" % path, *more],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.qmp = socket.socket(socket.AF_UNIX)
        while self.process.poll() is None:
            try:
                self.qmp.connect(path)
                break
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(0.005)
        self.lines = self.qmp.makefile("r")
        self.read()  # the greeting
        self.call("qmp_capabilities")
        self.call("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])

    def read(self):
        line = self.lines.readline()
        if not line:
            sys.exit("QEMU ended: " + open(os.path.join(folder, "qemu.log")).read()[-400:])
        return json.loads(line)

    def call(self, command, **arguments):
        self.qmp.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            reply = self.read()
            if "error" in reply:
                sys.exit("%s: %s" % (command, reply["error"]["desc"]))
            if "return" in reply:
                return reply["return"]

    def await_event(self, name):
        while self.read().get("event") != name:
            pass

    def close(self):
        self.process.kill()
        self.process.wait()
        self.qmp.close()


def save(ram, state):
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as listener:
        listener.bind((socket.VMADDR_CID_ANY, PORT))
        listener.listen(1)
        machine = Machine(ram)
        hello, _ = listener.accept()
        receive(hello, 8)
        hello.close()
    answer()  # what it reads is in the guest's page cache, as after a warm-up
    machine.call("migrate", uri="file:" + state)
    while True:
        status = machine.call("query-migrate").get("status")
        if status == "completed":
            break
        if status == "failed":
            sys.exit("migrate failed")
        time.sleep(0.01)
    machine.close()


def restore(ram, state):
    copy = ram + ".copy"
    shutil.copyfile(ram, copy)
    machine = Machine(copy, "-incoming", "defer")
    start = time.monotonic()
    machine.qmp.sendall(json.dumps({"execute": "migrate-incoming", "arguments": {"uri": "file:" + state}}).encode())
    machine.await_event("RESUME")
    resumed = time.monotonic()
    answer()
    end = time.monotonic()
    machine.close()
    return (end - start) * 1000, (resumed - start) * 1000


def main():
    ram, state = os.path.join(folder, "ram"), os.path.join(folder, "state")
    save(ram, state)
    for _ in range(int(runs)):
        print("%.3f %.3f" % restore(ram, state), flush=True)


main()
