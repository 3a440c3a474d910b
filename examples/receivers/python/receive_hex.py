"""Receives webhooks and verifies the hex signature; needs nothing but Python.

WALHOOK_SECRET=… python3 receive_hex.py
"""

import hashlib
import hmac
import json
import os
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = os.environ["WALHOOK_SECRET"]
PORT = int(os.environ.get("PORT", "9000"))
MOST = 16 << 20


def decoded(body, encoding):
    """The body before `compression = "gzip"`: signatures are over that. No more of it than anybody sends."""
    return zlib.decompressobj(31).decompress(body, MOST) if encoding == "gzip" else body


def verified(body, header):
    expected = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), (header or "").encode())


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        body = decoded(body, self.headers.get("content-encoding"))
        if verified(body, self.headers.get("x-webhook-signature")):
            print("received:", self.headers.get("x-webhook-event"), json.loads(body), flush=True)
            self.send_response(204)
        else:
            print("refused", flush=True)
            self.send_response(401)
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", PORT), Receiver)
print(f"listening on http://localhost:{server.server_port}", flush=True)
server.serve_forever()
