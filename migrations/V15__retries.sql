-- Many ended deliveries of a webhook on their way again: one row a retry. Its life:
--
--   pending --> running --> done | failed
--      |           |
--      +-----------+--> cancelled   by hand
--
-- `reached` is the id of the last delivery that was opened again. It moves in the transaction that opens them, so that a
-- retry that was cut short goes on where it stood. Deliveries that ended after it was asked for are not its own.
create table retries (
    id bigint generated always as identity primary key,
    slot text not null,
    webhook text not null,
    ended text[] not null check (cardinality(ended) > 0 and ended <@ array['failed', 'delivered', 'cancelled']),
    event text,                          -- a pattern, with * for any run of characters
    since timestamptz,
    until timestamptz,
    cause text,                          -- how the last attempt went: timeout, unreachable, refused, 503, 5xx
    per_second integer check (per_second between 1 and 1000),
    status text not null default 'pending'
        check (status in ('pending', 'running', 'done', 'failed', 'cancelled')),
    reason text,
    found bigint,                        -- how many there were when it began; null: not yet counted
    sent bigint not null default 0,      -- how many are on their way again
    reached text collate "C" not null default '',
    created_at timestamptz not null default now(),
    started_at timestamptz,
    updated_at timestamptz not null default now(),
    finished_at timestamptz,
    constraint failed_retry_has_its_reason check (status <> 'failed' or reason is not null),
    constraint ended_retry_has_its_time
        check ((status in ('done', 'failed', 'cancelled')) = (finished_at is not null))
);
create index retries_open on retries (slot, id) where status in ('pending', 'running');
create index retries_webhook on retries (webhook, id);
