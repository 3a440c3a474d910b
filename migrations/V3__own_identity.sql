-- A publication of somebody else's may cover all tables, these too; then Postgres refuses an UPDATE or DELETE of a table
-- whose rows have no replica identity.
--
-- Open rows change often, so they are told apart by their id alone. Rows that have ended change only by hand.
alter table deliveries_open replica identity using index deliveries_open_id;

create or replace function ensure_partitions(first date, last date) returns void
    language plpgsql set search_path from current as $$
declare
    day date;
    parent text;
    part text;
begin
    perform pg_advisory_xact_lock(hashtextextended('walhook.partitions.' || current_schema(), 0));
    for day in select generate_series(first, last, interval '1 day')::date loop
        foreach parent in array array['deliveries_delivered', 'deliveries_failed', 'past_attempts'] loop
            part := parent || to_char(day, '_YYYYMMDD');
            if to_regclass(format('%I', part)) is null then
                execute format(
                    'create table %I partition of %I for values from (%L) to (%L)',
                    part, parent,
                    day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC');
                execute format('alter table %I replica identity full', part);
            end if;
        end loop;
    end loop;
end
$$;

do $$
declare
    part regclass;
begin
    for part in
        select i.inhrelid::regclass from pg_catalog.pg_inherits i
        where i.inhparent in (
            'deliveries_delivered'::regclass, 'deliveries_failed'::regclass, 'past_attempts'::regclass)
    loop
        execute format('alter table %s replica identity full', part);
    end loop;
end
$$;
