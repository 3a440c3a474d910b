// Receives webhooks and verifies them with the Standard Webhooks library.
//   npm install && WALHOOK_SECRET=whsec_… node receive.mjs
import { createServer } from 'node:http';
import { Webhook } from 'standardwebhooks';

const secret = process.env.WALHOOK_SECRET;
const webhook = secret.startsWith('whsec_') ? new Webhook(secret) : new Webhook(Buffer.from(secret), { format: 'raw' });
const port = process.env.PORT ?? 9000;
const seen = new Set(); // in production: a table with a unique key

createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks); // the raw bytes are what was signed

  try {
    webhook.verify(body, request.headers);
  } catch (error) {
    console.log('refused:', error.message);
    return response.writeHead(401).end();
  }

  const id = request.headers['webhook-id'];
  if (!seen.has(id)) {
    seen.add(id);
    const event = JSON.parse(body);
    console.log('received:', request.headers['x-webhook-event'], id, event);
  }
  response.writeHead(204).end();
}).listen(port, () => console.log(`listening on http://localhost:${port}`));
