-- A lane may have a flow key besides its queue: what has one of its own is claimed within limits of its own. Lanes of the system's own
-- queues, whose names begin with `$`, have ids below 0; their tasks leave no events.
alter table lanes add column flow text not null default '' check (char_length(flow) <= 64);
alter table lanes drop constraint lanes_queue_kind_key;
alter table lanes add constraint lanes_queue_kind_flow_key unique (queue, kind, flow);

-- {"callback": …, "failure_callback": …}, either of them; null where there is none
alter table tasks add column callbacks json;
alter table task_history add column callbacks json;
-- of a schedule's tasks
alter table schedules add column callbacks json;

create table webhooks (
    id                         uuid        primary key,
    -- of its deliveries; handed on when the webhook is deleted
    lane                       integer     not null unique,
    url                        text        not null,
    description                text,
    -- names of kinds of events
    events                     text[]      not null check (cardinality(events) > 0),
    queues                     text[]      not null default '{}',
    tags                       text[]      not null default '{}',
    only_when                  text        check (only_when in ('failures', 'changes', 'recovery')),
    headers                    json        not null,
    -- null is the default policy of webhooks
    retry                      json,
    max_attempts               smallint    not null check (max_attempts between 1 and 100),
    timeout_seconds            integer     not null check (timeout_seconds between 1 and 30),
    -- Deliveries are signed with it: it must be readable.
    secret                     text        not null,
    previous_secret            text,
    previous_secret_expires_at timestamptz,
    -- events with numbers above this one are its
    after_event                bigint      not null,
    disabled_reason            text        check (disabled_reason in ('by_request', 'gone', 'failing', 'backlog')),
    disabled_at                timestamptz,
    created_at                 timestamptz not null default now(),
    version                    bigint      not null default 1,
    delivered                  bigint      not null default 0,
    failed_attempts            bigint      not null default 0,
    last_success_at            timestamptz,
    last_failure_at            timestamptz,
    failing_since              timestamptz,
    missed_events_at           timestamptz,
    constraint webhooks_disabled check ((disabled_reason is null) = (disabled_at is null))
) with (fillfactor = 50);

-- What a delivery is of. The delivery itself, its attempts and its outcome are a task, which has the same id.
create table webhook_deliveries (
    id         uuid        primary key,
    -- null where it is a callback
    webhook_id uuid,
    message_id text        not null,
    event_type text        not null,
    -- null where it is a test
    event_id   bigint,
    task_id    uuid,
    replay     boolean     not null default false,
    -- what a callback is signed with
    secret     text,
    created_at timestamptz not null default now()
);

create index webhook_deliveries_newest on webhook_deliveries (webhook_id, id);
create index webhook_deliveries_old on webhook_deliveries (created_at);
-- Each event is delivered once to each webhook, whoever drives.
create unique index webhook_deliveries_once on webhook_deliveries (webhook_id, event_id) where not replay;

-- Series whose last outcome was a failure, as far as some webhook wants to know of changes.
create table webhook_series (
    webhook_id uuid        not null references webhooks (id) on delete cascade,
    -- SHA-256 of the queue and the tags
    series     bytea       not null,
    failed_at  timestamptz not null default now(),
    primary key (webhook_id, series)
);

-- One row. Whoever locks it turns events into deliveries, and moves the cursor behind them in the same transaction.
create table webhook_driver (
    singleton             boolean primary key default true check (singleton),
    -- the number of the last event that was looked at
    cursor                bigint  not null default 0,
    -- tasks that end after this event may have callbacks; null as long as no task had any
    callbacks_after_event bigint
);
insert into webhook_driver default values;
