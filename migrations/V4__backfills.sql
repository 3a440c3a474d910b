-- Existing rows on their way to a webhook: one row a backfill. Its life:
--
--   pending --> running --> done | failed
--      | ^         |
--      v |         v
--     paused <-- (by hand)               failed --> pending   by hand
--                                        any that has not ended --> cancelled   by hand
--
-- `cursor` is the key of the last row that is done with; every row up to it has its delivery in the ledger, or owes none.
create table backfills (
    id bigint generated always as identity primary key,
    slot text not null,
    webhook text not null,
    schema_name text not null,
    table_name text not null,
    condition text,                      -- SQL over the table's columns; null: all rows
    rows_per_second integer check (rows_per_second > 0),
    status text not null default 'pending'
        check (status in ('pending', 'running', 'paused', 'done', 'failed', 'cancelled')),
    reason text,
    estimate bigint,                     -- how many rows the planner expects
    rows_done bigint not null default 0,
    deliveries bigint not null default 0,
    rows_moving bigint not null default 0,  -- rows that changed at every look, and were left to their live changes
    cursor text[],                       -- null: at the beginning
    floor text collate "C",              -- deliveries beyond the cursor have greater ids
    created_at timestamptz not null default now(),
    started_at timestamptz,
    updated_at timestamptz not null default now(),
    finished_at timestamptz,
    constraint failed_backfill_has_its_reason check (status <> 'failed' or reason is not null),
    constraint ended_backfill_has_its_time
        check ((status in ('done', 'cancelled')) = (finished_at is not null))
);
create index backfills_open on backfills (slot, id) where status in ('pending', 'running');
