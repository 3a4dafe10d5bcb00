"""A registry whose answers are wrong, slow or guarded, by the name of the repository asked for.  It prints
`listening on PORT`, then one line a request: method, path, whether an Authorization header came along."""

import hashlib
import http.server
import json
import threading
import urllib.parse

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = b"the bytes of a layer " * 1000


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

    def do_GET(self):
        bearer = self.headers.get("Authorization", "")
        host = "127.0.0.1:%d" % self.server.server_address[1]
        print("GET", self.path, "authorized" if bearer else "anonymous", flush=True)
        url = urllib.parse.urlparse(self.path)
        if url.path == "/token":
            query = urllib.parse.parse_qs(url.query)
            fine = query.get("service") == ["fake service"] and query.get("scope") == ["repository:token/a:pull"]
            return self.answer(200 if fine else 400, json.dumps({"token": TOKEN}).encode(), "application/json")
        if url.path.startswith("/elsewhere/"):
            return self.answer(400 if bearer else 200, LAYER)
        _, version, *name, kind, what = url.path.split("/")
        name = "/".join(name)
        if version != "v2":
            return self.answer(404, b"")
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
        if kind == "manifests":
            if name == "schema1":
                return self.answer(200, SCHEMA1, "application/vnd.docker.distribution.manifest.v1+prettyjws")
            if name == "html":
                return self.answer(200, b"<html>a login page</html>", "text/html; charset=utf-8")
            if name == "huge":
                return self.answer(200, b" " * ((4 << 20) + 1), MANIFEST)
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


def serve(handler, context=None):
    server = Server(("127.0.0.1", 0), handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print("listening on", server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(Handler)
