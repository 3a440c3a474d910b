"""Creates a webhook and sends a delivery again, with the client that openapi-python-client has made of the description.

Arguments: the server, a key, the new webhook's name and URL, the delivery's webhook and id. The generated package is on
PYTHONPATH. Prints one JSON object; exits with 1 where an answer is not what the description promises.
"""

import json
import sys

from walhook_client import AuthenticatedClient
from walhook_client.api.deliveries import get_delivery, list_deliveries, retry_delivery
from walhook_client.api.webhooks import change_webhook, create_webhook, get_webhook
from walhook_client.models import DeliveryInFull, DeliveryPage, Problem, Webhook


def expect(kind, response, status):
    """The parsed body of an answer, which must be of this status and this type."""
    if response.status_code != status or not isinstance(response.parsed, kind):
        sys.exit(f"expected {status} with a {kind.__name__}: {response}")
    return response.parsed


def main(server, key, name, url, webhook, delivery):
    client = AuthenticatedClient(base_url=f"{server}/api", token=key)
    wanted = Webhook(name=name, url=url, events=["orders.*"])
    made = create_webhook.sync_detailed(client=client, body=wanted, idempotency_key=f"once-{name}")
    secret = expect(Webhook, made, 201).secret
    change = change_webhook.sync_detailed(
        name, client=client, body=Webhook(filter_="record.total > 1"), if_match=made.headers["etag"]
    )
    expect(Webhook, change, 200)
    shown = expect(Webhook, get_webhook.sync_detailed(name, client=client), 200)
    taken = expect(Problem, create_webhook.sync_detailed(client=client, body=wanted), 409)

    found = list_deliveries.sync_detailed(client=client, webhook=webhook, status="failed")
    ids = [one.id for one in expect(DeliveryPage, found, 200).data]
    again = expect(DeliveryInFull, retry_delivery.sync_detailed(webhook, delivery, client=client), 200)
    whole = expect(DeliveryInFull, get_delivery.sync_detailed(webhook, delivery, client=client), 200)
    told = {
        "secret": secret,
        "filter": shown.filter_,
        "problem": taken.type_,
        "failed": ids,
        "retried": again.id,
        "attempts": len(whole.attempts),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
