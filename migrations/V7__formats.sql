-- What a body is, beside its bytes.

-- The headers that the body's format has beside content-type, a line "name: value" each: rendered once, with the body, and
-- the same at each attempt. Most formats have none.
alter table deliveries add column headers text;

-- Keys of [[webhooks]] that are new.
alter table webhooks
    add column format_version integer,
    add column compression text,
    add column compression_threshold text;
