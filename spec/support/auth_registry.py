"""A registry that wants to know who we are, by the name of the repository asked for, and its token server.  It prints
`listening on PORT`, then one line a request: host asked for, method, path, what the Authorization header says, and the
subject of the client's certificate.

usage: auth_registry.py [CERTIFICATE KEY [CLIENT_CA]]"""

import base64
import json
import ssl
import sys
import urllib.parse

import fake_registry
from say import say

GOOD = "user:secret"


class Handler(fake_registry.Handler):
    def authorization(self):
        given = self.headers.get("Authorization", "")
        return base64.b64decode(given[6:]).decode() if given.startswith("Basic ") else given

    def log_request(self, *_):
        subject = "-"
        if isinstance(self.connection, ssl.SSLSocket) and self.connection.getpeercert():
            subject = "/".join(value for part in self.connection.getpeercert()["subject"] for _, value in part)
        say(self.headers.get("Host"), self.command, self.path, self.authorization() or "anonymous", subject)

    def reply(self, value, status=200):
        self.answer(status, json.dumps(value).encode(), "application/json")

    def challenge(self, *challenges):
        self.send_response(401)
        for challenge in challenges:
            self.send_header("WWW-Authenticate", challenge)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        form = dict(urllib.parse.parse_qsl(body))
        say("form", json.dumps(form, sort_keys=True))
        if form.get("grant_type") != "refresh_token" or form.get("refresh_token") not in ("id/1+", "id/2+"):
            return self.reply({}, 401)
        return self.reply({"access_token": "t-identity", "refresh_token": "id/2+"})

    def token(self, what):
        who = self.authorization()
        if what == "token":
            return self.reply({"token": "t-token"} if who == GOOD else {}, 200 if who == GOOD else 401)
        if what == "scoped":
            query = dict(urllib.parse.parse_qsl(urllib.parse.urlparse(self.path).query))
            return self.reply({"token": "t-" + query["scope"]})
        if what == "moved":
            return self.answer(307, b"", Location="http://localhost:%s/token/anonymous" % self.server.server_address[1])
        if what == "array":
            return self.reply([])
        if what == "none":
            return self.reply({"tokens": "x"})
        if what == "number":
            return self.reply({"token": 7})
        if what == "lines":
            return self.reply({"token": "a\r\nX-Evil: 1"})
        if what == "large":
            return self.reply({"token": "x" * (300 << 10)})
        if what == "out-of-order":
            return self.answer(500, b"")
        if what == "html":
            return self.answer(200, b"<html>", "text/html")
        return self.reply({"token": "t-anonymous"})

    def guard(self, name, rest):
        """False when the request has been answered."""
        given, who = self.headers.get("Authorization", ""), self.authorization()
        scheme = "https" if isinstance(self.connection, ssl.SSLSocket) else "http"
        here = "%s://127.0.0.1:%d" % (scheme, self.server.server_address[1])
        bearer = 'Bearer realm="%s/token/%%s",service="a service"' % here
        if name == "basic" and who != GOOD:
            self.challenge('Basic realm="a, b"')
        elif name == "several" and given != "Bearer t-token":
            self.challenge("Negotiate YWJj==", 'Digest realm="x", nonce="Bearer y", Basic realm="z", '
                           'bEARER Realm = "%s/token/token" , service=x' % here)
        elif name == "token" and given != "Bearer t-token":
            self.challenge(bearer % "token")
        elif name == "identity" and given != "Bearer t-identity":
            self.challenge(bearer % "identity")
        elif name == "scopes" and given != "Bearer t-" + ("first" if "manifests" in rest else "second"):
            self.challenge(bearer % "scoped" + ',scope="%s"' % ("first" if "manifests" in rest else "second"))
        elif name == "moved" and given != "Bearer t-anonymous":
            self.challenge(bearer % "moved")
        elif name == "other-realm" and given != "Bearer t-token":
            self.challenge('Bearer realm="http://localhost:%d/token/token"' % self.server.server_address[1])
        elif name == "reply" and given != "Bearer t-anonymous":
            self.challenge(bearer % rest[0])
        elif name == "no-realm":
            self.challenge('Bearer service="x"')
        elif name == "file-realm":
            self.challenge('Bearer realm="file:///etc/passwd"')
        elif name == "never":
            self.challenge(bearer % "anonymous")
        elif name == "long":
            self.challenge('Bearer realm="%s",service="%s"' % (here, "x" * 600))
        elif name == "longer":
            self.challenge('Bearer realm="%s"' % ("x" * 9000))
        elif name == "megabyte":
            self.challenge('Bearer realm="%s"' % ("x" * (1 << 20)))
        else:
            return True
        return False

    def do_GET(self):
        path = urllib.parse.urlparse(self.path).path.split("/")[1:]
        port = self.server.server_address[1]
        if path[0] == "token":
            return self.token(path[1])
        if path[0] == "steal":
            return self.challenge('Basic realm="give it to me"', 'Bearer realm="http://localhost:%d/token/token"' % port)
        if path[0] == "elsewhere":
            return self.answer(200, fake_registry.LAYER)
        _, name, *rest = path
        what = rest[-1]
        if not self.guard(name, rest):
            return None
        if name == "stolen":
            return self.answer(307, b"", Location="http://localhost:%d/steal" % port)
        if name == "absent":
            return self.answer(404, b"")
        if name == "liar" and rest[-2] == "manifests":
            return self.answer(200, b"{}", fake_registry.MANIFEST)
        if rest[-2] == "manifests":
            return self.answer(200, fake_registry.IMAGE, fake_registry.MANIFEST)
        if what == fake_registry.digest(fake_registry.CONFIG):
            return self.answer(200, fake_registry.CONFIG)
        if name == "to-http":
            return self.answer(302, b"", Location="http://127.0.0.1:%d/elsewhere" % port)
        if name == "no-layer":
            return self.answer(404, b"")
        if name == "wrong-layer":
            return self.answer(200, fake_registry.LAYER[::-1])
        if name == "long-layer":
            return self.answer(200, fake_registry.LAYER + b"x")
        if name == "short-layer":
            return self.answer(200, fake_registry.LAYER[:-1])
        if name == "cut-layer":
            start = int((self.headers.get("Range") or "bytes=0-")[len("bytes="):-1])
            return self.ranged(fake_registry.LAYER, start, count=1000)
        if name in ("basic", "token", "redirected"):
            scheme = "https" if isinstance(self.connection, ssl.SSLSocket) else "http"
            return self.answer(307, b"", Location="%s://localhost:%d/elsewhere?signature=x" % (scheme, port))
        return self.answer(200, fake_registry.LAYER)


context = None
if len(sys.argv) > 1:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    if len(sys.argv) > 3:
        context.load_verify_locations(sys.argv[3])
        context.verify_mode = ssl.CERT_OPTIONAL
fake_registry.serve(Handler, context)
