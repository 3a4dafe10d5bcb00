# seeds.py DIR: what the fuzzers start from, in DIR/NAME, one file each.
import bz2, gzip, io, json, lzma, os, struct, subprocess, sys, tarfile, tempfile

def put(fuzzer, *contents):
    os.makedirs(f"{sys.argv[1]}/{fuzzer}", exist_ok=True)
    for number, content in enumerate(contents):
        with open(f"{sys.argv[1]}/{fuzzer}/{number}", "wb") as f:
            f.write(content)

digest = "sha256:" + "0123456789abcdef" * 4
put("reference", *(text.encode() for text in (
    "busybox", "library/nginx:1.27", "localhost:5000/a/b_c.d--e:tag@" + digest, "docker://[::1]:5000/x",
    "http://127.0.0.1:5000/name", "oci:/dir:tag", "oci:dir@" + digest, "oci-archive:file.tar:tag",
    "docker-archive:file.tar:name:tag", "docker-archive:file.tar:@1", "dir:/path")))

layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": 7}
config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": 7}
put("manifest", *(json.dumps(document).encode() for document in (
    {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": [layer] * 3},
    {"schemaVersion": 2, "manifests": [dict(layer, mediaType="application/vnd.oci.image.manifest.v1+json", platform={
        "os": "linux", "architecture": "arm64", "variant": "v8"})]},
    {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [digest, digest]}, "config": {
        "Env": ["A=1"], "Entrypoint": ["/bin/sh"], "Cmd": ["-c", "x"], "WorkingDir": "/", "User": "1:2",
        "Volumes": {"/v": {}}, "ExposedPorts": {"80/tcp": {}}, "Labels": {"k": "v"}, "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1}}},
    {"schemaVersion": 1, "fsLayers": []})))

def tar(kind):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
        def add(name, type=tarfile.REGTYPE, data=b"", **more):
            info = tarfile.TarInfo(name)
            info.type, info.size = type, len(data)
            for key, value in more.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
        add("dir", tarfile.DIRTYPE, mode=0o755)
        add("dir/file", data=b"x" * 5000, mtime=1.5 if kind == tarfile.PAX_FORMAT else 1)
        add("dir/" + "long" * 24, data=b"tail")
        add("hard", tarfile.LNKTYPE, linkname="dir/file")
        add("soft", tarfile.SYMTYPE, linkname="/dir")
        add("dev", tarfile.CHRTYPE, devmajor=1, devminor=3)
        add("dir/.wh.gone")
        add("other/.wh..wh..opq")
        if kind == tarfile.PAX_FORMAT:
            add("attr", pax_headers={"SCHILY.xattr.user.a": "b", "mtime": "-1.25"})
    return out.getvalue()

def tricks():
    """Each trick of a layer that is one of several entries' doing."""
    def entry(name, type=tarfile.REGTYPE, to="", data=b"", form=tarfile.PAX_FORMAT, **pax):
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size, info.pax_headers = type, to, len(data), pax
        return info.tobuf(form, "utf-8", "surrogateescape") + data + bytes(-len(data) % 512)
    def symlink(name, to):
        return entry(name, tarfile.SYMTYPE, to)
    def link(name, to):
        return entry(name, tarfile.LNKTYPE, to)
    folder = tarfile.DIRTYPE
    yield symlink("s", "d"), entry("s/x", data=b"1"), symlink("d/u", "../../s"), entry("d/u/y"), entry("s/.wh.x"), link("h", "s/x")
    yield link("a", "b"), link("b", "c"), entry("c", data=b"c"), entry("c", data=b"again"), link("c", "a")
    yield entry("a/x"), entry("a"), entry("a", folder), entry("a/y"), symlink("a", "b"), entry("a/z"), entry("a", folder)
    yield entry("d/.wh.x"), entry("d/x"), entry("d/.wh..wh..opq"), entry("d", folder), entry(".wh.d"), entry(".wh..wh.plnk")
    yield entry("n" * 250 + "/" + "n" * 250, form=tarfile.GNU_FORMAT), symlink("l", "t" * 3000), entry("./", folder)
    def sparse(version, data, **more):
        names = {"GNU.sparse." + key.replace("_", "."): value for key, value in more.items()}
        return entry("s", data=data, **dict(version, **names))
    yield sparse({}, b"onetwo", size="9000", numblocks="2", map="0,3,8192,3"),
    yield sparse({}, b"onetwo", size="9000", numblocks="1", offset="0", numbytes="6"),
    yield sparse({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}, b"2\n0\n3\n8192\n3\n".ljust(512, b"\0") + b"onetwo",
                 name="sparse", realsize="9000"),
    old = bytearray(entry("old", b"S", data=b"onetwo", form=tarfile.GNU_FORMAT))
    old[386:482] = b"".join(b"%011o\0" % n for n in (0, 3, 8192, 3, 0, 0, 0, 0))
    old[483:495] = b"%011o\0" % 9000
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old[:512])
    yield bytes(old),

def hostile():
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, os.path.dirname(__file__) + "/../fixtures/hostile/layers.py", folder], check=True,
                       stdout=subprocess.DEVNULL)
        for name in sorted(os.listdir(folder)):
            with open(folder + "/" + name, "rb") as f:
                content = f.read(1 << 15)
            if len(content) < 1 << 15:
                yield content

plain = [tar(kind) for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
put("layer", *plain, gzip.compress(plain[0], mtime=0), bz2.compress(plain[1]), lzma.compress(plain[2]), b"",
    *(b"".join(parts) for parts in tricks()), *hostile())

def mounts():
    """Steps of a guest: operation, node, handle, how the memory lies, the length of the arguments, these."""
    def step(op, node=0, args=b"", handle=0, memory=0):
        return struct.pack("<BBBBH", op, node, handle, memory, len(args)) + args
    def create(name, flags=2):
        return step(35, 0, struct.pack("<IIII", flags, 0o644, 0, 0) + name + b"\0")
    def read(op, offset, size, node=0, handle=0, memory=0):
        return step(op, node, struct.pack("<QQIIQII", 0, offset, size, 0, 0, 0, 0), handle, memory)
    def write(offset, data, node=0, handle=0, memory=0):
        return step(16, node, struct.pack("<QQIIQII", 0, offset, len(data), 0, 0, 0, 0) + data, handle, memory)
    def look(name, node=0):
        return step(1, node, name + b"\0")
    def lock(op, owner, kind, first, last, flags=0):
        return step(op, 1, struct.pack("<QQQQIIII", 0, owner, first, last, kind, 1, flags, 0))
    def map_(at, offset, flags=3, node=1):
        return step(48, node, struct.pack("<QQQQQ", 0, offset, 2 << 20, flags, at))
    move, mend, reset, opened = step(200), step(201), step(202), step(14, 1, struct.pack("<II", 2, 0))
    yield look(b"f") + opened + read(15, 0, 100, 1) + write(5, b"data", 1) + step(25, 1, bytes(24)) + move + read(15, 0, 100, 1) + step(18, 1, bytes(24))
    yield create(b"new") + write(0, b"abc" * 100, 1) + step(10, 0, b"new\0") + step(3, 1, bytes(16)) + move + read(15, 0, 10, 1)
    yield look(b"d") + step(27, 1, bytes(8)) + read(28, 0, 4096, 1) + read(44, 0, 4096, 1) + move + read(44, 1, 200, 1) + step(29, 1, bytes(24))
    yield step(9, 0, struct.pack("<II", 0o755, 0) + b"a\0") + step(12, 0, struct.pack("<Q", 1) + b"f\0b\0") + look(b"b") + step(13, 0, struct.pack("<Q", 2) + b"c\0")
    yield step(6, 0, b"s\0../outside\0") + look(b"s") + step(5, 1) + step(14, 1, bytes(8)) + look(b"l") + look(b"x", 2) + create(b"l", 0x202)
    yield look(b"f") + map_(0, 0) + map_(2 << 20, 0, 2) + opened + read(15, 0, 4000, 1, 0, 1) + write(0, b"w" * 50, 1, 0, 3) + \
        step(4, 1, struct.pack("<IIQQQQQQIIIIIIII", 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)) + mend + move + step(49, 1, struct.pack("<IQQ", 1, 0, 2 << 20))
    yield look(b"f") + opened + lock(32, 1, 1, 0, 9) + lock(33, 2, 1, 5, 5) + lock(31, 2, 0, 0, 99) + move + lock(32, 1, 2, 3, 4) + lock(32, 1, 1, 0, 1, 1) + reset
    yield look(b"f") + step(21, 1, struct.pack("<IIII", 3, 0, 0, 0) + b"user.a\0one") + step(22, 1, struct.pack("<II", 100, 0) + b"user.a\0") + step(23, 1, struct.pack("<II", 100, 0)) + step(24, 1, b"user.a\0")
    yield look(b"f") + opened + step(43, 1, struct.pack("<QQQII", 0, 0, 9000, 0, 0)) + step(46, 1, struct.pack("<QQII", 0, 0, 3, 0)) + step(47, 1, struct.pack("<QQQQQQQ", 0, 0, 0, 0, 4096, 100, 0)) + step(52, 1, bytes(24))
    yield step(8, 0, struct.pack("<IIII", 0o10644, 0, 0, 0) + b"q\0") + step(51, 0, struct.pack("<IIII", 2, 0o600, 0, 0) + b"/\0") + step(2, 1, struct.pack("<Q", 1)) + step(42, 0, struct.pack("<IIQQ", 1, 0, 2, 1)) + step(38)
    yield look(b"f") + opened + step(39, 1, struct.pack("<QIIQII", 0, 0, 0x80086601, 0, 0, 8)) + step(17) + step(34, 1, bytes(8)) + step(45, 0, struct.pack("<QII", 1, 2, 0) + b"f\0d\0") + step(50, 0, bytes(8))

def session():
    def node(number, parent, ino, kind, name):
        return struct.pack("<QQQQBQQHI", number, parent, 0, 1, 1, ino, 0, kind, len(name)) + name
    nodes = node(2, 1, 5, 0o40000, b"d") + node(3, 2, 6, 0o100000, b"g") + node(4, 1, 7, 0o100000, b"f")
    handles = struct.pack("<QQIBBQQIBB", 1 << 32, 3, 2, 0, 2, 1 << 32 | 1, 2, 0, 1, 2)
    mappings = struct.pack("<IQQB", 0, 4, 0, 1)
    locks = struct.pack("<QQIQQB", 4, 9, 1, 0, 5, 1)
    return struct.pack("<BIQ", 1, 39, 0) + struct.pack("<QI", 9, 3) + nodes + struct.pack("<I", 2) + handles + struct.pack("<I", 1) + mappings + \
        struct.pack("<I", 1) + locks

put("fuse", *(bytes((0, kind)) + steps for kind in (0, 8, 32, 64) for steps in mounts()), b"\1\x08" + session(), b"\1\x48" + session(), b"\0\1" + next(mounts()))
