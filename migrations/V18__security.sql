-- Who did what, by SQL too; and who was refused.

-- sql: somebody else's session with the database. unknown: who could not say who they are.
alter table audit drop constraint audit_actor_kind_check;
alter table audit add constraint audit_actor_kind_check
    check (actor_kind in ('command', 'admin', 'key', 'walhook', 'sql', 'unknown')) not valid;

-- What others write. walhook's own sessions have walhook.audited set, and say themselves who asked them; of every other one
-- the role and the address are known here. Only what has changed is told, and of what may be a secret only that it has.

-- The entries of one row: how it was and is, or null where it was not or is no more.
create function audit_of(of_table text, was jsonb, is_now jsonb)
    returns table (action text, object text, detail jsonb)
    language plpgsql immutable as $$
declare
    hidden constant text[] := array['secret', 'auth', 'headers', 'tls'];
    unsaid constant text[] := array['hash', 'version', 'created_at', 'updated_at', 'last_used_at', 'since'];
    named constant text := case of_table when 'webhooks' then 'name' when 'api_keys' then 'id' else 'webhook' end;
    op constant text := case when was is null then 'create' when is_now is null then 'delete' else 'update' end;
    status constant text := coalesce(is_now, was) ->> 'status';
    untold_of_url constant text := '[?#].*|(?<=//)[^/@]*@';
    before jsonb;
    after jsonb;
    secret text;
begin
    was := jsonb_strip_nulls(coalesce(was, '{}')) - unsaid;
    is_now := jsonb_strip_nulls(coalesce(is_now, '{}')) - unsaid;
    before := was;
    after := is_now;
    if op = 'update' then
        select coalesce(jsonb_object_agg(w.key, w.value), '{}') into before
            from jsonb_each(was) w where w.value is distinct from is_now -> w.key;
        select coalesce(jsonb_object_agg(n.key, n.value), '{}') into after
            from jsonb_each(is_now) n where n.value is distinct from was -> n.key;
    end if;
    if before = '{}' and after = '{}' then
        return;
    end if;
    foreach secret in array hidden loop
        if before ? secret then
            before := jsonb_set(before, array[secret], '"***"');
        end if;
        if after ? secret then
            after := jsonb_set(after, array[secret], '"***"');
        end if;
    end loop;
    -- Neither who logs in by a URL nor what its query says; that it is another is told all the same.
    if before ? 'url' then
        before := jsonb_set(before, '{url}', to_jsonb(regexp_replace(before ->> 'url', untold_of_url, '', 'g')));
    end if;
    if after ? 'url' then
        after := jsonb_set(after, '{url}', to_jsonb(regexp_replace(after ->> 'url', untold_of_url, '', 'g')));
    end if;
    object := coalesce(is_now ->> named, was ->> named);
    detail := jsonb_strip_nulls(jsonb_build_object('before', nullif(before, '{}'), 'after', nullif(after, '{}')));
    if of_table = 'webhooks' then
        action := 'webhook.' || op;
        if op = 'update' and (before ? 'secret' or after ? 'secret') then
            if before - 'secret' <> '{}' or after - 'secret' <> '{}' then
                return next;
            end if;
            action := 'webhook.rotate';
            detail := '{}';
        end if;
    elsif of_table = 'api_keys' then
        action := 'key.' || case when op = 'update' and after ? 'revoked_at' and not was ? 'revoked_at' then 'revoke' else op end;
    else
        action := 'webhook.' || case when op = 'delete' then case status when 'paused' then 'resume' else 'enable' end
            else case status when 'paused' then 'pause' else 'disable' end end;
    end if;
    return next;
end
$$;

-- It has its owner's rights: whoever may write a webhook need not be able to write the audit.
create function audit_sql() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    named text := case tg_table_name when 'webhooks' then 'name' when 'api_keys' then 'id' else 'webhook' end;
    changed text := case tg_op
        when 'INSERT' then 'select null::jsonb was, to_jsonb(n) is_now from new_rows n'
        when 'DELETE' then 'select to_jsonb(o) was, null::jsonb is_now from old_rows o'
        else format('select to_jsonb(o) was, to_jsonb(n) is_now from old_rows o full join new_rows n using (%I)', named) end;
begin
    if tg_op = 'TRUNCATE' then
        execute format('insert into %I.audit (actor_kind, actor, action, detail, from_address)
            values (''sql'', session_user, %L, ''{"all": true}'', inet_client_addr())', tg_table_schema,
            case tg_table_name when 'webhooks' then 'webhook.delete' when 'api_keys' then 'key.delete' else 'webhook.enable' end);
    else
        execute format('insert into %1$I.audit (actor_kind, actor, action, object, detail, from_address)
            select ''sql'', session_user, a.action, a.object, a.detail, inet_client_addr()
            from (%2$s) r, lateral %1$I.audit_of(%3$L, r.was, r.is_now) a', tg_table_schema, changed, tg_table_name);
    end if;
    return null;
end
$$;

do $$
declare
    audited text;
    kind text[];
begin
    foreach audited in array array['webhooks', 'webhook_states', 'api_keys'] loop
        foreach kind slice 1 in array array[
            ['insert', 'referencing new table as new_rows'],
            ['update', 'referencing old table as old_rows new table as new_rows'],
            ['delete', 'referencing old table as old_rows'],
            ['truncate', '']] loop
            execute format('create trigger %1$s_audited_%2$s after %2$s on %1$I %3$s for each statement
                when (current_setting(''walhook.audited'', true) is distinct from ''on'') execute function audit_sql()',
                audited, kind[1], kind[2]);
        end loop;
    end loop;
end
$$;
