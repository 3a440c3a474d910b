// Receives webhooks and verifies the hex signature; needs nothing but Node.
//   WALHOOK_SECRET=… node receive-hex.mjs
import { createHmac, timingSafeEqual } from 'node:crypto';
import { createServer } from 'node:http';

const secret = process.env.WALHOOK_SECRET;
const port = process.env.PORT ?? 9000;

function verified(body, header = '') {
  const expected = 'sha256=' + createHmac('sha256', secret).update(body).digest('hex');
  return header.length === expected.length && timingSafeEqual(Buffer.from(header), Buffer.from(expected));
}

createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);

  if (!verified(body, request.headers['x-webhook-signature'])) {
    console.log('refused');
    return response.writeHead(401).end();
  }
  console.log('received:', request.headers['x-webhook-event'], JSON.parse(body));
  response.writeHead(204).end();
}).listen(port, () => console.log(`listening on http://localhost:${port}`));
