"""A registry that serves an OCI layout folder, and keeps a layer's last byte back until other layers are EROFS files.
It prints `listening on PORT`, then each range that is asked for: digest, first byte.

usage: gated_registry.py LAYOUT EROFS_FOLDER KEPT_DIGEST HOW_MANY"""

import ctypes
import http.server
import json
import os
import sys

from say import say

layout, folder, kept, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
libc = ctypes.CDLL(None, use_errno=True)
IN_MOVED_TO = 0x80


def wait_for_layers():
    watch = libc.inotify_init()
    if watch < 0 or libc.inotify_add_watch(watch, folder.encode(), IN_MOVED_TO) < 0:
        raise OSError(ctypes.get_errno(), folder)
    while len([name for name in os.listdir(folder) if name.endswith(".erofs")]) < count:
        os.read(watch, 4096)
    os.close(watch)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        name = self.path.rsplit("/", 1)[-1]
        content_type = "application/octet-stream"
        if not name.startswith("sha256:"):
            if "/manifests/" not in self.path:
                self.send_response(200)
                self.send_header("Content-Length", "0")
                return self.end_headers()
            with open(layout + "/index.json") as index:
                entry = json.load(index)["manifests"][0]
            name, content_type = entry["digest"], entry["mediaType"]
        with open(layout + "/blobs/" + name.replace(":", "/"), "rb") as blob:
            data = blob.read()
        start = int((self.headers.get("Range") or "bytes=0-")[len("bytes="):-1])
        say("GET", name, start)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", "bytes %d-%d/%d" % (start, len(data) - 1, len(data)))
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:-1])
        if name == kept:
            wait_for_layers()
        return self.wfile.write(data[-1:])

    do_HEAD = do_GET


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    say("listening on", server.server_address[1])
    server.serve_forever()
