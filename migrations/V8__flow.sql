-- The flow to each webhook: its settings in the database, and what is known of a webhook that fails.

alter table webhooks
    alter column concurrency type text,  -- a number, or 'auto'
    add column rate_limit text,
    add column breaker jsonb,            -- a table of settings, or false
    add column disable_after text,       -- a duration, or 'false'
    add column held_for text;

-- A row only while a webhook fails: since its first failure without a success behind it. Kept by the running instance,
-- so that the next one goes on from here.
create table webhook_health (
    webhook text primary key,
    failing_since timestamptz not null,
    failures bigint not null check (failures > 0),
    reason text not null,
    opened_at timestamptz,               -- since when its breaker is open; null: it is not
    probe_wait_ms bigint check (probe_wait_ms > 0),
    noted_at timestamptz not null default now(),
    constraint open_has_its_wait check ((opened_at is null) = (probe_wait_ms is null))
);

-- How each webhook stands that is declared here or is not active: active, failing, paused, disabled.
create view webhook_standings as
    select n.webhook,
        coalesce(s.status, case when h.opened_at is not null then 'failing' else 'active' end) as status,
        case when s.webhook is not null then s.reason when h.opened_at is not null then h.reason end as reason,
        case when s.webhook is not null then s.since else h.opened_at end as since,
        h.failing_since
    from (select name as webhook from webhooks
        union select webhook from webhook_states
        union select webhook from webhook_health) n
    left join webhook_states s on s.webhook = n.webhook
    left join webhook_health h on h.webhook = n.webhook;
