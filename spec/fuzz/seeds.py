# seeds.py DIR: what the fuzzers start from, in DIR/NAME, one file each.
import bz2, gzip, io, json, lzma, os, sys, tarfile

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

plain = [tar(kind) for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
put("layer", *plain, gzip.compress(plain[0], mtime=0), bz2.compress(plain[1]), lzma.compress(plain[2]), b"")
