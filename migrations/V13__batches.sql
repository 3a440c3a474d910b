-- Several deliveries in one request.

alter table webhooks
    add column batch jsonb;              -- a table of settings, or false
