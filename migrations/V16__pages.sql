-- A webhook's deliveries, newest first, however many others have: about 5 microseconds of Postgres for each delivery.
create index deliveries_delivered_webhook_id on deliveries_delivered (webhook, id);
create index deliveries_failed_webhook_id on deliveries_failed (webhook, id);

-- Lists of webhooks are in the order of bytes, whatever the database's is.
create index webhooks_name on webhooks (name collate "C");
