# seeds.py DIR: what the fuzzers start from, in DIR/NAME, one file each.
import bz2, gzip, io, json, lzma, os, subprocess, sys, tarfile, tempfile

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
