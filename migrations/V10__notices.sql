-- What webhooks are told about the machinery itself (webhook.failing, delivery.failed, source.gap, ...).

-- What was told last of each thing, so that a fact is told once, whoever finds it, and nothing is told too often. A row
-- only where something was told that is not over, or not long ago.
create table notices (
    topic text not null check (topic in ('webhook', 'delivery', 'source', 'gap')),
    name text not null,                  -- the webhook, or the slot
    told text not null,                  -- the event's type
    since timestamptz not null,          -- when what was told began
    told_at timestamptz not null default now(),
    primary key (topic, name)
);

-- Deliveries that were given up and not told of yet: written with them, removed when they are told. A row a webhook.
create table failures (
    webhook text primary key,
    failures bigint not null check (failures > 0),
    first_at timestamptz not null default now(),
    last_at timestamptz not null default now(),
    delivery text collate "C" not null,  -- the last one's id
    reason text not null,                -- why it was given up
    error text                           -- how its last attempt failed, where there was one
);

-- What is so already is not news.
insert into notices (topic, name, told, since)
    select 'webhook', webhook, 'webhook.disabled', since from webhook_states where status = 'disabled'
    union all
    select 'gap', slot, 'source.gap', max(noticed_at) from gaps group by slot;
insert into notices (topic, name, told, since)
    select 'webhook', webhook, 'webhook.failing', opened_at from webhook_health where opened_at is not null
    on conflict do nothing;
