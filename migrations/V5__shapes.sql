-- What a table looked like where the log showed another shape than before, for webhooks that want `schema_changed`.
--
-- A row is a decision: the row change at this place (in the log's order: generation, commit, sequence) was the first of
-- its table in this shape. Where `previous` is null the table had not been seen before, and there is no event; else the
-- event tells the difference. Whoever reads the log again finds the decision and makes the same event.
create table shapes (
    slot text not null references sources (slot) on delete cascade,
    relation bigint not null,            -- the table's oid: it outlives the table's name
    generation integer not null,
    commit_lsn pg_lsn not null,
    sequence bigint not null,
    shape jsonb not null,
    previous jsonb,
    noted_at timestamptz not null default now(),
    primary key (slot, relation, generation, commit_lsn, sequence)
);
