-- Who did what, by SQL too; and who was refused.

-- sql: somebody else's session with the database. unknown: who could not say who they are.
alter table audit drop constraint audit_actor_kind_check;
alter table audit add constraint audit_actor_kind_check
    check (actor_kind in ('command', 'admin', 'key', 'walhook', 'sql', 'unknown')) not valid;

-- What others write. walhook's own sessions have walhook.audited set, and say themselves who asked them; of every other one
-- the role and the address are known here. Only what has changed is told, and of what may be a secret only that it has.
-- The function has its owner's rights: whoever may write a webhook need not be able to write the audit.
create function audit_sql() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    hidden constant text[] := array['secret', 'auth', 'headers', 'tls'];
    unsaid constant text[] := array['hash', 'version', 'created_at', 'updated_at', 'last_used_at', 'since'];
    was jsonb := '{}';
    is_now jsonb := '{}';
    before jsonb;
    after jsonb;
    what text;
    named text;
begin
    if tg_op = 'TRUNCATE' then
        what := case tg_table_name when 'webhooks' then 'webhook.delete'
            when 'api_keys' then 'key.delete' else 'webhook.enable' end;
        execute format('insert into %I.audit (actor_kind, actor, action, detail, from_address)
            values (''sql'', session_user, $1, ''{"all": true}'', inet_client_addr())', tg_table_schema) using what;
        return null;
    end if;
    if tg_op <> 'INSERT' then
        was := jsonb_strip_nulls(to_jsonb(old)) - unsaid;
    end if;
    if tg_op <> 'DELETE' then
        is_now := jsonb_strip_nulls(to_jsonb(new)) - unsaid;
    end if;
    named := coalesce(is_now, was) ->> case tg_table_name when 'webhooks' then 'name' when 'api_keys' then 'id' else 'webhook' end;
    named := coalesce(named, was ->> case tg_table_name when 'webhooks' then 'name' when 'api_keys' then 'id' else 'webhook' end);
    select coalesce(jsonb_object_agg(w.key, w.value), '{}') into before
        from jsonb_each(was) w where w.value is distinct from is_now -> w.key;
    select coalesce(jsonb_object_agg(n.key, n.value), '{}') into after
        from jsonb_each(is_now) n where n.value is distinct from was -> n.key;
    if before = '{}' and after = '{}' then
        return null;
    end if;
    what := case tg_table_name
        when 'webhooks' then
            case tg_op when 'INSERT' then 'webhook.create' when 'DELETE' then 'webhook.delete' else
                case when before - 'secret' = '{}' and after - 'secret' = '{}' then 'webhook.rotate' else 'webhook.update' end end
        when 'api_keys' then
            case tg_op when 'INSERT' then 'key.create' when 'DELETE' then 'key.delete' else
                case when not was ? 'revoked_at' and is_now ? 'revoked_at' then 'key.revoke' else 'key.update' end end
        else
            case when tg_op <> 'DELETE' then case is_now ->> 'status' when 'paused' then 'webhook.pause' else 'webhook.disable' end
                else case was ->> 'status' when 'paused' then 'webhook.resume' else 'webhook.enable' end end
        end;
    select before || coalesce(jsonb_object_agg(k, '***'), '{}') into before from unnest(hidden) k where before ? k;
    select after || coalesce(jsonb_object_agg(k, '***'), '{}') into after from unnest(hidden) k where after ? k;
    -- Neither who logs in by a URL nor what its query says.
    if before ? 'url' then
        before := jsonb_set(before, '{url}', to_jsonb(regexp_replace(regexp_replace(before ->> 'url', '[?#].*', ''), '//[^/]*@', '//')));
    end if;
    if after ? 'url' then
        after := jsonb_set(after, '{url}', to_jsonb(regexp_replace(regexp_replace(after ->> 'url', '[?#].*', ''), '//[^/]*@', '//')));
    end if;
    execute format('insert into %I.audit (actor_kind, actor, action, object, detail, from_address)
        values (''sql'', session_user, $1, $2, $3, inet_client_addr())', tg_table_schema)
        using what, named, jsonb_strip_nulls(jsonb_build_object('before', nullif(before, '{}'), 'after', nullif(after, '{}')));
    if what = 'webhook.update' and (before ? 'secret' or after ? 'secret') then
        execute format('insert into %I.audit (actor_kind, actor, action, object, from_address)
            values (''sql'', session_user, ''webhook.rotate'', $1, inet_client_addr())', tg_table_schema) using named;
    end if;
    return null;
end
$$;

create trigger webhooks_audited after insert or update or delete on webhooks for each row
    when (current_setting('walhook.audited', true) is distinct from 'on') execute function audit_sql();
create trigger webhooks_emptied after truncate on webhooks for each statement
    when (current_setting('walhook.audited', true) is distinct from 'on') execute function audit_sql();
create trigger webhook_states_audited after insert or update or delete on webhook_states for each row
    when (current_setting('walhook.audited', true) is distinct from 'on') execute function audit_sql();
create trigger webhook_states_emptied after truncate on webhook_states for each statement
    when (current_setting('walhook.audited', true) is distinct from 'on') execute function audit_sql();
create trigger api_keys_audited after insert or update or delete on api_keys for each row
    when (current_setting('walhook.audited', true) is distinct from 'on') execute function audit_sql();
create trigger api_keys_emptied after truncate on api_keys for each statement
    when (current_setting('walhook.audited', true) is distinct from 'on') execute function audit_sql();
