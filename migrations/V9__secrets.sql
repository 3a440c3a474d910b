-- Secrets at rest, and who did what with them.

-- The columns of webhooks that hold secrets (secret, auth, headers, tls) hold plain text, or what walhook has encrypted:
-- whenc_v1.KEY.BASE64, in a column of jsonb as a string. Whoever writes a row writes plain text.

-- Who did what: a row for each act that somebody may have to answer for, in the transaction of the act. It never holds a
-- secret. Nothing of walhook's changes or removes a row.
create table audit (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    actor_kind text not null             -- how it came: by the command line, the admin token, an API key, walhook itself
        check (actor_kind in ('command', 'admin', 'key', 'walhook')),
    actor text not null,                 -- the database's role, or the key's name
    action text not null,                -- as in webhook.rotate
    object text,                         -- the name of what it was done to; null: more than one thing
    detail jsonb not null default '{}' check (jsonb_typeof(detail) = 'object'),
    from_address inet                    -- null: by a local socket
);
create index audit_at on audit (at, id);
create index audit_object on audit (object, at) where object is not null;
