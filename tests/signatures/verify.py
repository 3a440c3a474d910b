"""Verifies one request with the public standardwebhooks library for Python.

Reads {"secret", "headers", "body" (base64), "scheme" ("standard" | "hex")} as JSON from standard input. Exits 0 when
the signature verifies, 1 when it does not, 2 when the library is missing. "hex" is the check people write by hand.
"""

import base64
import hashlib
import hmac
import json
import sys

try:
    from standardwebhooks.webhooks import Webhook, WebhookVerificationError
except ImportError as error:
    print(f"the Python library is missing: {error}", file=sys.stderr)
    sys.exit(2)

given = json.load(sys.stdin)
secret, headers, body = given["secret"], given["headers"], base64.b64decode(given["body"])

if given["scheme"] == "hex":
    expected = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    sys.exit(0 if hmac.compare_digest(expected, headers.get("x-webhook-signature", "")) else 1)

# The library takes text as base64; a secret without the prefix is its own bytes.
key = secret if secret.startswith("whsec_") else secret.encode()
try:
    Webhook(key).verify(body, headers)
except WebhookVerificationError as error:
    print(error, file=sys.stderr)
    sys.exit(1)
