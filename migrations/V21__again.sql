-- Sending again: what could not be rendered keeps its event, and nobody sends what somebody else has just sent.

-- The event of a delivery that could not be rendered, as a standard body: sent again, it is rendered anew. Null where the
-- delivery has a body, and where there is nothing to render: a message that is no JSON, a row that is too large.
alter table deliveries add column unrendered bytea;

-- What could not be rendered had an empty body, which is none. (What was only given up for its age had its own.)
update deliveries set body = null
where status = 'failed' and attempts = 0 and body = ''
    and fail_reason not in (
        'it was held for longer than held_for allows', 'it is older than retry.max_age allows');

alter table retries
    add column unsent bigint not null default 0,   -- how many could not be rendered this time either
    add column spares timestamptz;                 -- what was sent again then or later is left out

-- The longest waiting of what was sent again by hand.
create index deliveries_open_again on deliveries_open (webhook, status, sent_again_at)
    where sent_again_at is not null;
