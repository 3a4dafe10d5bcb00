# big_layout.py DIR MIB LAYERS: an OCI layout of one image whose layers are, in turn, this machine's files below /usr:
# programs, libraries and texts as they are in images.  Sizes are of the unpacked files; layers are gzipped.
import gzip, hashlib, io, json, os, platform, sys, tarfile

folder, mib, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.makedirs(folder + "/blobs/sha256")

def files():
    for at, folders, names in os.walk("/usr"):
        folders.sort()
        for name in sorted(names):
            path = at + "/" + name
            if os.path.isfile(path) and not os.path.islink(path) and os.stat(path).st_size < 16 << 20:
                yield path

def blob(data):
    name = hashlib.sha256(data).hexdigest()
    with open(folder + "/blobs/sha256/" + name, "wb") as f:
        f.write(data)
    return {"digest": "sha256:" + name, "size": len(data)}

layers, diff_ids, source = [], [], files()
for _ in range(count):
    raw, size = io.BytesIO(), 0
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        while size < (mib << 20) // count:
            path = next(source)
            tar.add(path, recursive=False)
            size += os.stat(path).st_size
    raw = raw.getvalue()
    diff_ids.append("sha256:" + hashlib.sha256(raw).hexdigest())
    layers.append(dict(blob(gzip.compress(raw, 6, mtime=0)), mediaType="application/vnd.oci.image.layer.v1.tar+gzip"))
architecture = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
config = blob(json.dumps({"os": "linux", "architecture": architecture, "config": {},
                          "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode())
manifest = blob(json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                            "config": dict(config, mediaType="application/vnd.oci.image.config.v1+json"),
                            "layers": layers}).encode())
manifest.update(mediaType="application/vnd.oci.image.manifest.v1+json",
                annotations={"org.opencontainers.image.ref.name": "latest"})
with open(folder + "/index.json", "w") as f:
    json.dump({"schemaVersion": 2, "manifests": [manifest]}, f)
with open(folder + "/oci-layout", "w") as f:
    f.write('{"imageLayoutVersion":"1.0.0"}')
