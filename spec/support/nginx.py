"""nginx as the TLS front of a registry on loopback.  It prints `listening on PORT`, then one line a request: protocol,
number of the connection, method, path.

usage: nginx.py FOLDER CERTIFICATE KEY UPSTREAM [http2]"""

import os
import socket
import sys

FOLDER, CERTIFICATE, KEY, UPSTREAM = sys.argv[1:5]
HTTP2 = " http2" if sys.argv[5:] else ""

# nginx wants to know its port beforehand: a socket that is bound already is handed to it, as at its own upgrades.
server = socket.create_server(("127.0.0.1", 0))
server.set_inheritable(True)
port = server.getsockname()[1]
temporary = "".join("  %s_temp_path %s/%s;\n" % (name, FOLDER, name)
                    for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
with open(FOLDER + "/nginx.conf", "w", encoding="ascii") as config:
    config.write("""
daemon off;
%(user)s
worker_processes 1;
pid %(folder)s/pid;
error_log stderr;
events {}
http {
%(temporary)s
  log_format words '$server_protocol $connection $request_method $uri';
  access_log /dev/stdout words;
  server {
    listen 127.0.0.1:%(port)d ssl%(http2)s;
    ssl_certificate %(certificate)s;
    ssl_certificate_key %(key)s;
    location / { proxy_pass http://%(upstream)s; proxy_set_header Host $http_host; }
  }
}
""" % {"folder": FOLDER, "user": "" if os.getuid() else "user root;", "temporary": temporary, "port": port,
       "http2": HTTP2, "certificate": CERTIFICATE, "key": KEY, "upstream": UPSTREAM})
print("listening on", port, flush=True)
os.environ["PATH"] += ":/usr/sbin"
os.environ["NGINX"] = "%d;" % server.fileno()
os.execvp("nginx", ["nginx", "-e", "stderr", "-p", FOLDER, "-c", FOLDER + "/nginx.conf"])
