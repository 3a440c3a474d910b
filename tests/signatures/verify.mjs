// Verifies one request with the public standardwebhooks library for Node.
//
// Reads {secret, headers, body (base64), scheme ("standard" | "hex")} as JSON from standard input. Exits 0 when the
// signature verifies, 1 when it does not, 2 when the library is missing. "hex" is the one-liner people write.
// The library is looked for in the folder given as the first argument.

import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

let library;
try {
  library = createRequire(`${process.argv[2]}/package.json`)('standardwebhooks');
} catch (error) {
  console.error(`the Node library is missing: ${error.message}`);
  process.exit(2);
}

const { secret, headers, body: encoded, scheme } = JSON.parse(readFileSync(0, 'utf8'));
const body = Buffer.from(encoded, 'base64');

if (scheme === 'hex') {
  const expected = 'sha256=' + createHmac('sha256', secret).update(body).digest('hex');
  process.exit(expected === headers['x-webhook-signature'] ? 0 : 1);
}

// The library takes text as base64; a secret without the prefix is its own bytes (given as bytes:
// of text the library would take one byte per character).
const { Webhook } = library;
const webhook = secret.startsWith('whsec_') ? new Webhook(secret) : new Webhook(Buffer.from(secret), { format: 'raw' });
try {
  webhook.verify(body, headers);
} catch (error) {
  if (!(error instanceof library.WebhookVerificationError)) throw error;
  console.error(error.message);
  process.exit(1);
}
