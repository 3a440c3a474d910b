-- Templates that are kept in the database: written by the API, the command line or SQL.

-- Each change of the table's rows takes the next number, and none is ever used twice.
create sequence template_numbers;

-- A row is one version of a template, and what it says never changes: whatever is pinned to it stays as it is. The greatest
-- number of a name is its latest, which those follow that name no version.
create table templates (
    name text not null,
    version text not null,               -- where none is given: v1, v2, v3
    number bigint not null default 0,    -- given by the trigger below
    content_type text not null default 'application/json',
    body text not null,
    description text,
    created_at timestamptz not null default now(),
    primary key (name, version)
);
create unique index templates_number on templates (number);

create function number_template() returns trigger
    language plpgsql set search_path from current as $$
begin
    -- Writers of one name come one after the other: the greatest number is the last that was committed.
    perform pg_advisory_xact_lock(hashtextextended('walhook.template.' || tg_table_schema || '.' || new.name, 0));
    new.number := nextval('template_numbers');
    if new.version is null then
        select 'v' || coalesce(max(substr(t.version, 2)::bigint), 0) + 1 into new.version
        from templates t where t.name = new.name and t.version ~ '^v[0-9]{1,9}$';
    end if;
    return new;
end
$$;

create trigger templates_numbered before insert on templates
    for each row execute function number_template();

create function keep_template() returns trigger
    language plpgsql set search_path from current as $$
begin
    if (new.name, new.version, new.number, new.content_type, new.body)
        is distinct from (old.name, old.version, old.number, old.content_type, old.body) then
        raise exception 'a version of a template never changes'
            using errcode = 'restrict_violation', hint = 'Insert another version of it.';
    end if;
    return new;
end
$$;

create trigger templates_kept before update on templates
    for each row execute function keep_template();

create trigger templates_changed after insert or update or delete or truncate on templates
    for each statement execute function touch_catalog();
