-- Numbers of each webhook, summed up by the minute, later by the hour, so that reading them costs nothing.
--
-- A row is what one process has counted: the sums of the outcomes that it wrote to the ledger, kept in the same
-- transactions. Who reads adds the rows up.
create table rollups (
    webhook text not null,
    begins timestamptz not null,
    span interval not null check (span in ('1 minute', '1 hour')),
    slot text not null,                  -- who counted: the slot and the epoch of its owner; '' and 0 where it was put together
    epoch bigint not null,
    attempts bigint not null,
    delivered bigint not null,
    first_try bigint not null,           -- delivered at the first attempt
    failed bigint not null,
    sla_met bigint not null,             -- delivered within the promised time after the commit
    sla_missed bigint not null,          -- delivered later, or failed
    http_4xx bigint not null,            -- attempts that failed, by cause
    http_5xx bigint not null,
    http_other bigint not null,
    timed_out bigint not null,
    unreachable bigint not null,
    refused bigint not null,
    receipt bytea not null,              -- from commit to receipt: five bytes a bucket, its number and its count
    request bytea not null,              -- how long answered requests took, likewise
    primary key (webhook, begins, span, slot, epoch)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
create index rollups_begins on rollups (span, begins);

-- Since when what waits has waited: ids sort in the order of commits.
create index deliveries_open_waiting on deliveries_open (webhook, status, id);

-- When it was last sent again by hand: then it has no commit to be measured from.
alter table deliveries add column sent_again_at timestamptz;

-- A key of [[webhooks]] that is new.
alter table webhooks add column sla text;
