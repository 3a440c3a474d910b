-- What is known of a slot beside its owner: up to where it was read, should it be lost; and since when something waits.
alter table sources
    add column confirmed_lsn pg_lsn,      -- everything up to here is settled; noted now and then, so it may be further
    add column confirmed_at timestamptz,  -- when that was noted
    add column waiting_since timestamptz; -- since when the oldest waits that an instance has seen waiting; null: none does

-- A gap is open from the loss of a slot until the next slot is made: only then is it known where reading goes on.
alter table gaps add column is_open boolean not null default false;
create unique index gaps_open on gaps (slot) where is_open;
