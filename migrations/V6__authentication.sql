-- How walhook proves itself to a receiver of a webhook stored here, and reaches it; the columns are the keys of
-- [[webhooks]], and what is secret in them stands as text. A proxy is the operator's: rows go by that of [delivery].
alter table webhooks
    add column auth jsonb,
    add column signature text,           -- a name, or a JSON object
    add column tls jsonb;
