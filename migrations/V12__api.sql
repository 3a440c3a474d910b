-- What the HTTP API needs: keys, and what two writers of one webhook tell each other by.

-- Each change of a row takes the next number, and none is ever used twice, not even by another row of the same name.
create sequence webhook_versions;

alter table webhooks
    add column description text,
    add column metadata jsonb,
    add column version bigint not null default nextval('webhook_versions');

create function count_webhook() returns trigger
    language plpgsql set search_path from current as $$
begin
    new.version := nextval('webhook_versions');
    new.updated_at := now();
    return new;
end
$$;

create trigger webhooks_counted before update on webhooks
    for each row execute function count_webhook();

-- Who may use the API. A key is 256 random bits and is shown once; what is kept is its SHA-256.
create table api_keys (
    id text collate "C" primary key,     -- the part of a key that may be shown
    name text not null,
    hash bytea not null check (octet_length(hash) = 32),
    scopes text[] not null check (cardinality(scopes) > 0
        and scopes <@ array['webhook:read', 'webhook:write', 'incoming:write', 'admin']),
    tenant text,
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    last_used_at timestamptz,            -- to the minute
    revoked_at timestamptz
);

-- What a create under an Idempotency-Key was answered, for whoever asks again. No secret is in it.
create table idempotent_answers (
    id bytea primary key,                -- SHA-256 over who asked, and the key
    request bytea not null,              -- SHA-256 over what was asked
    status integer,
    answer jsonb,
    created_at timestamptz not null default now()
);
create index idempotent_answers_age on idempotent_answers (created_at);

-- The audit of one object, newest first.
create index audit_object_id on audit (object, id) where object is not null;
