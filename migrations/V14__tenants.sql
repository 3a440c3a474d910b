-- Webhooks of tenants: customers of the product, who get events of their own rows alone.

alter table webhooks
    add column tenant text;

-- The name says whose it is, and so does every delivery, which has the name of its webhook: what was made for one tenant
-- can never be read, or sent again, by another.
alter table webhooks
    add constraint webhooks_named_by_tenant check (
        case when tenant is null then position('~' in name) = 0
        else tenant ~ '^[A-Za-z0-9_.-]+$' and name ~ '^[^~]+~[^~]+$' and split_part(name, '~', 1) = tenant end
    ) not valid;

create index webhooks_of_tenant on webhooks (tenant, name collate "C") where tenant is not null;

-- What the key of a tenant may be for. One that was made by other means is refused what is the operator's all the same.
alter table api_keys
    add constraint api_keys_of_tenants check (
        tenant is null or scopes <@ array['webhook:read', 'webhook:write']
    ) not valid;
