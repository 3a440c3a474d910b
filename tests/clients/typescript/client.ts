// Creates a webhook and sends a delivery again, with the types that openapi-typescript has made of the description.
//
// Arguments: the server, a key, the new webhook's name and URL, the delivery's webhook and id. Prints one JSON object;
// exits with 1 where an answer is not what the description promises. What the types do not promise does not compile.

import createClient from "openapi-fetch";

import type { components, paths } from "./api.js";

declare const process: { argv: string[] };

type Webhook = components["schemas"]["Webhook"];
type Delivery = components["schemas"]["DeliveryInFull"];

const [server = "", key = "", name = "", url = "", webhook = "", delivery = ""] = process.argv.slice(2);
const client = createClient<paths>({
  baseUrl: `${server}/api`,
  headers: { Authorization: `Bearer ${key}` },
});

function expect<T>(answer: { data?: T; response: Response }, status: number): T {
  if (answer.response.status !== status || answer.data === undefined) {
    throw new Error(`expected ${status}: ${answer.response.status} ${JSON.stringify(answer)}`);
  }
  return answer.data;
}

const wanted: Webhook = { name, url, events: ["orders.*"] };
const made = await client.POST("/webhooks", {
  body: wanted,
  params: { header: { "Idempotency-Key": `once-${name}` } },
});
const secret = expect(made, 201).secret;
const changed = await client.PATCH("/webhooks/{id}", {
  params: { path: { id: name }, header: { "If-Match": made.response.headers.get("etag") ?? "" } },
  body: { filter: "record.total > 1" },
});
expect(changed, 200);
const shown = expect(await client.GET("/webhooks/{id}", { params: { path: { id: name } } }), 200);
const taken = await client.POST("/webhooks", { body: wanted });
if (taken.response.status !== 409 || taken.error === undefined) {
  throw new Error(`expected a problem: ${JSON.stringify(taken)}`);
}

const query = { webhook, status: "failed" };
const found = expect(await client.GET("/deliveries", { params: { query } }), 200);
const path = { id: webhook, delivery_id: delivery };
const again: Delivery = expect(
  await client.POST("/webhooks/{id}/deliveries/{delivery_id}/retry", { params: { path } }),
  200,
);
const whole: Delivery = expect(
  await client.GET("/webhooks/{id}/deliveries/{delivery_id}", { params: { path } }),
  200,
);
console.log(
  JSON.stringify({
    secret,
    filter: shown.filter,
    problem: taken.error.type,
    failed: found.data.map((one) => one.id),
    retried: again.id,
    attempts: whole.attempts.length,
  }),
);
