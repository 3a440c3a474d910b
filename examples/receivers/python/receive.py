"""Receives webhooks and verifies them with the Standard Webhooks library.

pip install -r requirements.txt && WALHOOK_SECRET=whsec_… python3 receive.py
"""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

SECRET = os.environ["WALHOOK_SECRET"]
PORT = int(os.environ.get("PORT", "9000"))
WEBHOOK = Webhook(SECRET if SECRET.startswith("whsec_") else SECRET.encode())
seen = set()  # in production: a table with a unique key


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))  # the raw bytes are what was signed
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            WEBHOOK.verify(body, headers)
        except WebhookVerificationError as error:
            print("refused:", error, flush=True)
            return self.answer(401)
        if headers["webhook-id"] not in seen:
            seen.add(headers["webhook-id"])
            print("received:", headers.get("x-webhook-event"), json.loads(body), flush=True)
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        if status != 204:
            self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


print(f"listening on http://localhost:{PORT}", flush=True)
ThreadingHTTPServer(("127.0.0.1", PORT), Receiver).serve_forever()
