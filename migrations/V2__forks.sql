-- Where the log of a slot forked: a standby was promoted, or a backup restored. From that position on the source is in
-- another generation, so that positions used twice do not make the same ids twice.
create table forks (
    slot text not null references sources (slot) on delete cascade,
    generation integer not null check (generation > 1),
    from_lsn pg_lsn not null,
    timeline integer not null,
    noticed_at timestamptz not null default now(),
    primary key (slot, generation)
);
