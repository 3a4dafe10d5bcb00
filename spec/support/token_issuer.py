"""A token server for docker-registry (distribution's "Token Authentication Specification"): name "user", password
"secret", or the identity token "identity".  It prints `listening on PORT`, then the grants.

usage: token_issuer.py CERTIFICATE KEY"""

import base64
import http.server
import json
import ssl
import subprocess
import sys
import time
import urllib.parse

from say import say

CERTIFICATE, KEY = sys.argv[1:]


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def token(service, scope):
    der = ssl.PEM_cert_to_DER_cert(open(CERTIFICATE, encoding="ascii").read())
    header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
    now = int(time.time())
    access = []
    if scope:
        kind, name, actions = scope.split(":")
        access = [{"type": kind, "name": name, "actions": actions.split(",")}]
    claims = {"iss": "spec", "sub": "user", "aud": service, "iat": now, "nbf": now - 60, "exp": now + 600, "jti": "x",
              "access": access}
    text = encode(json.dumps(header).encode()) + b"." + encode(json.dumps(claims).encode())
    sign = subprocess.run(["openssl", "dgst", "-sha256", "-sign", KEY], input=text, stdout=subprocess.PIPE, check=True)
    return (text + b"." + encode(sign.stdout)).decode()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def grant(self, how, fine, fields):
        say(how, fields.get("scope"), "granted" if fine else "refused")
        body = json.dumps({"access_token": token(fields["service"], fields.get("scope"))} if fine else {}).encode()
        self.send_response(200 if fine else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        fields = dict(urllib.parse.parse_qsl(urllib.parse.urlparse(self.path).query))
        good = "Basic " + base64.b64encode(b"user:secret").decode()
        self.grant("GET", self.headers.get("Authorization") == good, fields)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        fields = dict(urllib.parse.parse_qsl(body))
        self.grant("POST", fields.get("refresh_token") == "identity", fields)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
say("listening on", server.server_address[1])
server.serve_forever()
