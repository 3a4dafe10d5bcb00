"""A registry whose answers are wrong, slow or guarded, by the name of the repository asked for.  It prints
`listening on PORT`, then one line a request: method, path, whether an Authorization header came along."""

import gzip
import hashlib
import http.server
import io
import json
import random
import tarfile
import threading
import time
import urllib.parse

from say import say

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def tar(data):
    """One file, with this content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo("file")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


LAYER = tar(b"the bytes of a layer " * 1000)


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


CONFIG = json.dumps({
    "os": "linux", "architecture": "amd64", "config": {"Cmd": ["x"]},
    "rootfs": {"type": "layers", "diff_ids": [digest(LAYER)]},
}).encode()
IMAGE = json.dumps({
    "schemaVersion": 2, "mediaType": MANIFEST,
    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(CONFIG), "size": len(CONFIG)},
    "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(LAYER), "size": len(LAYER)}],
}).encode()
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
INDEX = json.dumps({
    "schemaVersion": 2, "mediaType": INDEX_TYPE,
    "manifests": [{"mediaType": MANIFEST, "digest": digest(IMAGE), "size": len(IMAGE),
                   "platform": {"os": "linux", "architecture": "amd64"}}],
}).encode()
# Repositories under many/ have an image of several layers, each larger than what sockets hold.
PIECE = 64 << 10
MANY = [random.Random(i).randbytes(12 * PIECE + i) for i in range(6)]
MANY_CONFIG = json.dumps({
    "os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in MANY]},
}).encode()
MANY_IMAGE = json.dumps({
    "schemaVersion": 2, "mediaType": MANIFEST,
    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(MANY_CONFIG),
               "size": len(MANY_CONFIG)},
    "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(layer), "size": len(layer)}
               for layer in MANY],
}).encode()
GIGABYTE = 1 << 30
SCHEMA1 = json.dumps({"schemaVersion": 1, "name": "x", "tag": "t", "fsLayers": [], "history": []}).encode()
TOKEN = "an-anonymous.token"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body, content_type="application/octet-stream", length=None, **headers):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def ranged(self, data, start, status=None, count=None, **headers):
        """The rest of data from start; cut after `count` bytes, and then the connection is closed."""
        if start:
            headers.setdefault("Content_Range", "bytes %d-%d/%d" % (start, len(data) - 1, len(data)))
        rest = data[start:]
        self.answer(status or (206 if start else 200), rest[:count], length=len(rest), **headers)
        self.close_connection = count is not None and count < len(rest)

    def many(self, how, what):
        """A blob of many/HOW."""
        shared, data = self.server, {digest(blob): blob for blob in MANY + [MANY_CONFIG]}[what]
        if what == digest(MANY_CONFIG):
            if how == "busy-config" and shared.times(how, what) == 1:
                return self.answer(503, b"")
            return self.answer(200, data)
        start = int((self.headers.get("Range") or "bytes=0-")[len("bytes="):-1])
        say("BLOB", how, MANY.index(data), start)
        times, half = shared.times(how, what), len(data) // 2
        if how == "drops":
            return self.ranged(data, start, count=PIECE)
        if how == "tiny-drops":
            return self.ranged(data, start, count=10)
        if how == "rangeless":
            return self.ranged(data, 0, count=half if times == 1 else None)
        if how == "wrong-range" and start:
            return self.ranged(data, start, Content_Range="bytes %d-%d/%d" % (start + 1, len(data) - 1, len(data)))
        if how == "other-size" and start:
            return self.ranged(data, start, Content_Range="bytes %d-%d/%d" % (start, len(data), len(data) + 1))
        if how == "no-range" and start:
            return self.answer(416, b"")
        if how == "other-range" and start:
            return self.ranged(data[::-1], start)
        if how == "whole-range" and start:
            return self.answer(206, data, Content_Range="bytes %d-%d/%d" % (start, len(data) - 1, len(data)))
        if how == "unasked-range":
            return self.answer(206, data[PIECE:], Content_Range="bytes %d-%d/%d" % (PIECE, len(data) - 1, len(data)))
        if how == "stalls-for-ever":
            self.answer(200, b"", length=len(data))
            threading.Event().wait()
        if how == "stalls" and times == 1:
            self.answer(200, data[:half], length=len(data))
            self.wfile.flush()
            threading.Event().wait()
        if how == "error-500" and times <= 2:
            return self.answer(500, b"{}", "application/json")
        if how == "endless-500":
            self.answer(500, b"", length=1 << 40)
            while True:
                self.wfile.write(bytes(PIECE))
        if how == "limited" and times == 1:
            shared.not_before[what] = time.monotonic() + 1
            return self.answer(429, b"{}", "application/json", Retry_After="1")
        if how == "limited" and time.monotonic() < shared.not_before[what]:
            return self.answer(404, b"too early")
        if how == "limited-for-an-hour":
            return self.answer(429, b"{}", "application/json", Retry_After="3600")
        if how == "garbage":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"10000\r\n" + data[:0x10000] + b"\r\nnot a number\r\n" + data[0x10000:])
            self.close_connection = True
            return None
        if how == "shorter":
            return self.answer(200, data[:-1])
        if how == "longer":
            return self.answer(200, data + b"x")
        if how == "expired" and self.headers.get("Authorization") in (None, "Bearer " + TOKEN + "1"):
            return self.challenge("many/expired")
        if how == "four":
            # Nobody is answered before four have asked.
            try:
                shared.four.wait(60)
            except threading.BrokenBarrierError:
                return self.answer(404, b"")
        if how in ("slow", "meet", "two"):
            with shared.lock:
                shared.under_way += 1
                say("UNDERWAY", how, shared.under_way)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            if start:
                self.send_header("Content-Range", "bytes %d-%d/%d" % (start, len(data) - 1, len(data)))
            self.end_headers()
            try:
                while len(data) - start > PIECE // 4:
                    self.wfile.write(data[start:start + PIECE // 4])
                    self.wfile.flush()
                    start += PIECE // 4
                    time.sleep(0.001)  # a line of 16 MB/s
            finally:
                with shared.lock:
                    shared.under_way -= 1
            return self.wfile.write(data[start:])
        if how == "gate" and not start:
            self.answer(200, data[:half], length=len(data))
            self.wfile.flush()
            shared.gate.wait()
            return self.wfile.write(data[half:])
        return self.ranged(data, start, count=half if times == 1 and how.endswith("-range") or how == "broken" else None)

    def endless(self, piece, pieces=None):
        """Piece after piece, until whoever reads has enough."""
        count = 0
        while pieces is None or count < pieces:
            self.wfile.write(piece)
            count += 1
        self.close_connection = True

    def hostile_manifest(self, how):
        if how == "gigabyte":
            self.answer(200, b"", MANIFEST, length=GIGABYTE)
            return self.endless(b" " * PIECE, GIGABYTE // PIECE)
        if how == "endless":
            self.send_response(200)
            self.send_header("Content-Type", MANIFEST)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            return self.endless(b"10000\r\n" + b" " * PIECE + b"\r\n")
        if how == "headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            return self.endless(b"X-Header: " + b"x" * 1000 + b"\r\n")
        if how == "header-line":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Header: ")
            return self.endless(b"x" * PIECE)
        if how == "interim":
            return self.endless(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 100)
        if how == "trailers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n")
            return self.endless(b"X-Trailer: " + b"x" * 1000 + b"\r\n")
        if how == "garbage":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            return self.endless(b"10\r\n" + IMAGE[:16] + b"\r\nnot a number\r\n", 1)
        if how == "bomb":
            return self.answer(200, gzip.compress(IMAGE + b" " * (64 << 20)), MANIFEST, Content_Encoding="gzip")
        if how == "deep":
            return self.answer(200, IMAGE[:-1] + b',"x":' + b"[" * 100000 + b"]" * 100000 + b"}", MANIFEST)
        if how == "twice":
            return self.answer(200, IMAGE[:-1] + b',"layers":[]}', MANIFEST)
        if how == "digest":
            return self.answer(200, IMAGE.replace(digest(LAYER).encode(), digest(LAYER)[:-1].encode()), MANIFEST)
        if how == "part":
            return self.answer(206, IMAGE, MANIFEST, Content_Range="bytes 0-%d/%d" % (len(IMAGE) - 1, len(IMAGE)))
        self.answer(200, b"", MANIFEST, length=len(IMAGE))  # stalls
        threading.Event().wait()

    def do_HEAD(self):
        """Of an image whose layers are served; peek/HOW says how."""
        say("HEAD", self.path)
        _, _, *name, _, _ = self.path.split("/")
        how = name[-1]
        if how == "changes":
            return self.answer(200, b"", MANIFEST, length=len(IMAGE), Docker_Content_Digest=digest(b"another"))
        if how in ("404", "405", "500"):
            return self.answer(int(how), b"")
        if how == "silent":
            return self.answer(200, b"", MANIFEST, length=len(IMAGE))
        if how == "long":
            return self.answer(200, b"", MANIFEST, length=len(IMAGE), Docker_Content_Digest=digest(IMAGE) + "0" * 100)
        if how == "index":
            return self.answer(200, b"", INDEX_TYPE, length=len(INDEX), Docker_Content_Digest=digest(INDEX))
        return self.answer(200, b"", MANIFEST, length=len(IMAGE), Docker_Content_Digest=digest(IMAGE))

    def challenge(self, name):
        realm = "http://127.0.0.1:%d/token" % self.server.server_address[1]
        return self.answer(401, b"{}", "application/json",
                           WWW_Authenticate='Bearer realm="%s",service="many",scope="repository:%s:pull"' % (realm, name))

    def do_GET(self):
        bearer = self.headers.get("Authorization", "")
        host = "127.0.0.1:%d" % self.server.server_address[1]
        say("GET", self.path, "authorized" if bearer else "anonymous")
        url = urllib.parse.urlparse(self.path)
        if url.path == "/token":
            query = urllib.parse.parse_qs(url.query)
            if query.get("service") == ["many"]:
                self.server.tokens += 1
                token = {"token": TOKEN + str(self.server.tokens)}
                return self.answer(200, json.dumps(token).encode(), "application/json")
            fine = query.get("service") == ["fake service"] and query.get("scope") == ["repository:token/a:pull"]
            return self.answer(200 if fine else 400, json.dumps({"token": TOKEN}).encode(), "application/json")
        if url.path.startswith("/elsewhere/"):
            return self.answer(400 if bearer else 200, LAYER)
        _, version, *name, kind, what = url.path.split("/")
        name = "/".join(name)
        if version != "v2":
            return self.answer(404, b"")
        if name == "open-gate":
            self.server.gate.set()
            return self.answer(404, b"")
        if name.startswith("many/"):
            how = name[len("many/"):]
            if kind == "blobs":
                return self.many(how, what)
            if how == "meet":
                self.server.two.wait()
            if how == "expired" and not bearer:
                return self.challenge(name)
            if how == "busy-manifest" and self.server.times(how, what) == 1:
                return self.answer(500, b"")
            return self.answer(200, MANY_IMAGE, MANIFEST)
        if name.startswith("token/") and bearer != "Bearer " + TOKEN:
            realm = "http://203.0.113.1/token" if name == "token/foreign" else "http://%s/token" % host
            challenge = 'Bearer realm="%s",service="fake service",scope="repository:%s:pull"' % (realm, name)
            return self.answer(401, b"{}", "application/json", WWW_Authenticate=challenge)
        if name == "busy":
            error = {"errors": [{"code": "TOOMANYREQUESTS", "message": "slow\x1b[31m down"}]}
            return self.answer(429, json.dumps(error).encode(), "application/json")
        if name == "login":
            return self.answer(401, b"", WWW_Authenticate='Basic realm="x"')
        if name == "loop":
            return self.answer(302, b"", Location="http://%s%s" % (host, self.path))
        if name == "file":
            return self.answer(302, b"", Location="file:///etc/hostname")
        if name == "peek/index" and kind == "manifests" and what == "latest":
            return self.answer(200, INDEX, INDEX_TYPE)
        if name.startswith("hostile/") and kind == "manifests":
            return self.hostile_manifest(name[len("hostile/"):])
        if kind == "manifests":
            if name == "schema1":
                return self.answer(200, SCHEMA1, "application/vnd.docker.distribution.manifest.v1+prettyjws")
            if name == "html":
                return self.answer(200, b"<html>a login page</html>", "text/html; charset=utf-8")
            if name == "huge":
                return self.answer(200, b" " * ((4 << 20) + 1), MANIFEST)
            if name == "partial":
                return self.answer(206, IMAGE, MANIFEST)
            if name == "plain":
                return self.answer(200, IMAGE, "application/json; charset=utf-8")
            if name == "mislabelled":
                return self.answer(200, IMAGE, "application/vnd.oci.image.index.v1+json")
            return self.answer(200, IMAGE, MANIFEST)
        if what == digest(CONFIG):
            return self.answer(200, CONFIG)
        if name == "missing":
            return self.answer(404, b"")
        if name == "cut":
            self.answer(200, LAYER[:1000], length=len(LAYER))
            self.close_connection = True
            return None
        if name == "short":
            return self.answer(200, LAYER[:1000])
        if name == "long":
            return self.answer(200, LAYER + b"more")
        if name == "other":
            return self.answer(200, LAYER[::-1])
        if name == "redirected":
            return self.answer(307, b"", Location="http://localhost:%s/elsewhere/" % host.split(":")[1])
        if name == "token/a":
            return self.answer(307, b"", Location="http://localhost:%s/elsewhere/" % host.split(":")[1])
        if name == "stuck":
            self.answer(200, LAYER[:1000], length=len(LAYER))
            self.wfile.flush()
            threading.Event().wait()
        return self.answer(200, LAYER)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *args):
        super().__init__(*args)
        self.lock = threading.Lock()
        self.counts, self.not_before, self.under_way, self.tokens = {}, {}, 0, 0
        self.gate, self.two, self.four = threading.Event(), threading.Barrier(2), threading.Barrier(4)

    def times(self, *key):
        """How often this has been asked for, now included."""
        with self.lock:
            self.counts[key] = self.counts.get(key, 0) + 1
            return self.counts[key]

    def handle_error(self, *_):
        """A client that went away."""


def serve(handler, context=None):
    server = Server(("127.0.0.1", 0), handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    say("listening on", server.server_address[1])
    server.serve_forever()


if __name__ == "__main__":
    serve(Handler)
