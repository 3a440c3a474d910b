-- The ledger: what is owed to receivers and what became of it.
--
-- Runs with search_path set to the schema of the configuration (`database.schema`), under an advisory lock.

-- Which process reads which slot. The epoch is a fence: every writing transaction checks it, so that a process
-- that has lost the slot writes nothing more.
create table sources (
    slot text primary key,
    system_identifier text not null,
    timeline integer not null,
    generation integer not null check (generation > 0),
    epoch bigint not null check (epoch > 0),
    holder text not null,
    held_since timestamptz not null default now()
);

-- What Postgres itself lost: log that was removed before it could be read.
create table gaps (
    id bigint generated always as identity primary key,
    slot text not null,
    from_lsn pg_lsn,
    to_lsn pg_lsn not null,
    noticed_at timestamptz not null default now(),
    reason text not null
);

-- One row a delivery. Its life:
--
--   pending --> delivered
--      | ^
--      v |
--   retrying --> delivered | failed          failed --> pending      by hand
--     held ----> pending                     any open -> cancelled   by hand
--
-- The open ones live in one small table, the ended ones in a partition a day, so that retention drops a partition.
create table deliveries (
    id text collate "C" not null,
    event_id text collate "C" not null,
    event_type text not null,
    webhook text not null,
    lane bigint not null,
    status text not null
        check (status in ('pending', 'retrying', 'held', 'delivered', 'failed', 'cancelled')),
    attempts integer not null default 0 check (attempts >= 0),
    retried_from integer not null default 0,   -- attempts made before it was last sent again by hand
    due_at timestamptz,                  -- null: behind an earlier one of its lane, held, or ended
    lease bigint,                        -- whose attempt is under way; due_at is then the lease's end
    committed_at timestamptz not null,
    schema_name text not null,
    table_name text not null,
    row_key text not null,
    operation text not null,
    content_type text not null,
    body bytea,
    recorded_at timestamptz not null default now(),
    finished_at timestamptz,
    fail_reason text,
    last_attempt_at timestamptz,
    last_took_ms double precision,
    last_outcome text check (last_outcome in ('responded', 'timed_out', 'unreachable', 'refused')),
    last_http_status integer,
    last_error text,
    last_response bytea,
    constraint ended_has_its_time
        check ((status in ('delivered', 'failed', 'cancelled')) = (finished_at is not null)),
    constraint ended_is_not_due
        check (status in ('pending', 'retrying') or (due_at is null and lease is null)),
    constraint leased_is_due check (lease is null or due_at is not null),
    constraint delivered_was_answered
        check (status <> 'delivered' or (last_http_status between 200 and 299 and attempts > 0)),
    constraint retrying_was_tried check (status <> 'retrying' or attempts > 0),
    constraint failed_has_its_reason check ((status = 'failed') = (fail_reason is not null)),
    constraint open_has_its_body check (finished_at is not null or body is not null),
    constraint tried_has_its_attempt check ((attempts > 0) = (last_attempt_at is not null))
) partition by list (status);

create table deliveries_open partition of deliveries for values in ('pending', 'retrying', 'held')
    with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, fillfactor = 80);
create table deliveries_delivered partition of deliveries for values in ('delivered')
    partition by range (finished_at);
create table deliveries_failed partition of deliveries for values in ('failed', 'cancelled')
    partition by range (finished_at);

create unique index deliveries_open_id on deliveries_open (id);
create index deliveries_open_lane on deliveries_open (webhook, lane, id);
create index deliveries_open_due on deliveries_open (webhook, due_at, id) where due_at is not null;
create index deliveries_open_leased on deliveries_open (lease) where lease is not null;
create index deliveries_delivered_id on deliveries_delivered (id);
create index deliveries_failed_id on deliveries_failed (id);
create index deliveries_failed_webhook on deliveries_failed (webhook, finished_at);

-- Every attempt but a delivery's last, which is in its own row: a delivery that works is one row, written once.
create table past_attempts (
    delivery text collate "C" not null,
    number integer not null check (number > 0),
    attempted_at timestamptz not null,
    took_ms double precision not null,
    outcome text not null,
    http_status integer,
    error text,
    response bytea
) partition by range (attempted_at);
create index past_attempts_delivery on past_attempts (delivery, number);

create view attempts as
    select delivery, number, attempted_at, took_ms, outcome, http_status, error, response
    from past_attempts
    union all
    select id, attempts, last_attempt_at, last_took_ms, last_outcome, last_http_status, last_error, last_response
    from deliveries
    where attempts > 0;

-- Makes the partitions of the days from `first` to `last` (UTC) where they are missing.
create function ensure_partitions(first date, last date) returns void
    language plpgsql set search_path from current as $$
declare
    day date;
    parent text;
begin
    perform pg_advisory_xact_lock(hashtextextended('walhook.partitions.' || current_schema(), 0));
    for day in select generate_series(first, last, interval '1 day')::date loop
        foreach parent in array array['deliveries_delivered', 'deliveries_failed', 'past_attempts'] loop
            if to_regclass(format('%I', parent || to_char(day, '_YYYYMMDD'))) is null then
                execute format(
                    'create table %I partition of %I for values from (%L) to (%L)',
                    parent || to_char(day, '_YYYYMMDD'), parent,
                    day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC');
            end if;
        end loop;
    end loop;
end
$$;

-- What is known of a webhook beyond its declaration, in file or database: a row only where it is not `active`.
create table webhook_states (
    webhook text primary key,
    status text not null check (status in ('paused', 'disabled')),
    reason text not null,
    since timestamptz not null default now()
);

-- Webhooks declared in the database; the columns are the keys of [[webhooks]].
create table webhooks (
    name text primary key,
    url text not null,
    secret text,                         -- one, or a JSON array of several
    events text[] not null,
    filter text,
    headers jsonb,
    format text,
    template text,
    timeout text,
    concurrency integer,
    ordering text,
    retry jsonb,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

-- Counts the changes of declarations and states, so that a reader can see cheaply whether there was one.
create table catalog_version (
    one boolean primary key default true check (one),
    version bigint not null
);
insert into catalog_version (version) values (1);

create function touch_catalog() returns trigger
    language plpgsql set search_path from current as $$
begin
    update catalog_version set version = version + 1;
    perform pg_notify(tg_table_schema, 'catalog');
    return null;
end
$$;

create trigger webhooks_changed after insert or update or delete or truncate on webhooks
    for each statement execute function touch_catalog();
create trigger webhook_states_changed after insert or update or delete or truncate on webhook_states
    for each statement execute function touch_catalog();
