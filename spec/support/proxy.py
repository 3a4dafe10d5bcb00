"""A proxy that takes every name for this machine: it prints `listening on PORT`, then one line a request: method,
target, and what the Proxy-Authorization and Authorization headers say.

usage: proxy.py TARGET_PORT [STATUS]: everything goes to TARGET_PORT, or is answered with STATUS"""

import base64
import select
import socket
import socketserver
import sys

from say import say

TARGET = int(sys.argv[1])
STATUS = sys.argv[2] if len(sys.argv) > 2 else None


def words(given):
    return base64.b64decode(given[6:]).decode() if given.startswith("Basic ") else given or "-"


class Handler(socketserver.BaseRequestHandler):
    def head(self):
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.request.recv(1 << 16)
            if not more:
                return None
            data += more
        return data

    def pump(self, other):
        ways = {self.request: other, other: self.request}
        while True:
            for source in select.select(list(ways), [], [])[0]:
                data = source.recv(1 << 16)
                if not data:
                    return
                ways[source].sendall(data)

    def handle(self):
        data = self.head()
        if not data:
            return
        first, *lines = data.split(b"\r\n\r\n")[0].decode().split("\r\n")
        method, target, _ = first.split()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        say(method, target, words(headers.get("proxy-authorization", "")), words(headers.get("authorization", "")))
        if STATUS:
            self.request.sendall(b"HTTP/1.1 %s No\r\nContent-Length: 0\r\n\r\n" % STATUS.encode())
            return
        with socket.create_connection(("127.0.0.1", TARGET)) as other:
            if method == "CONNECT":
                self.request.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                # One request a connection, by the path alone, is all that servers need to understand.
                path = "/" + target.split("://", 1)[1].partition("/")[2]
                kept = [line for line in lines if not line.lower().startswith(("proxy-", "connection:"))]
                other.sendall("\r\n".join(["%s %s HTTP/1.1" % (method, path), "Connection: close", *kept, "", ""]).encode())
            self.pump(other)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True

    def handle_error(self, *_):
        """Somebody went away."""


server = Server(("127.0.0.1", 0), Handler)
say("listening on", server.server_address[1])
server.serve_forever()
