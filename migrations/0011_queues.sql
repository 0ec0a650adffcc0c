-- What is set of a queue. One without a row has no limits and no defaults, and is not paused. Who claims within its limits locks the row.
create table queues (
    queue              text        primary key check (char_length(queue) between 1 and 64),
    revision           bigint      not null default 1,
    changed_at         timestamptz not null default now(),
    paused_at          timestamptz,
    pause_reason       text,
    -- tasks in flight at once: of the queue, and of each flow key
    concurrency        integer     check (concurrency > 0),
    key_concurrency    integer     check (key_concurrency > 0),
    -- so many tasks in so many seconds: of the queue, and of each flow key
    rate_count         integer     check (rate_count > 0),
    rate_seconds       integer     check (rate_seconds > 0),
    key_rate_count     integer     check (key_rate_count > 0),
    key_rate_seconds   integer     check (key_rate_seconds > 0),
    -- of its tasks that do not say; null is the default of all tasks
    max_attempts       smallint    check (max_attempts between 1 and 100),
    timeout_seconds    integer     check (timeout_seconds between 1 and 86400),
    retry              json,
    constraint queues_rate check ((rate_count is null) = (rate_seconds is null)),
    constraint queues_key_rate check ((key_rate_count is null) = (key_rate_seconds is null)),
    constraint queues_paused check (paused_at is not null or pause_reason is null)
);

-- One row. Every change of `queues` raises the version; a claim names the one that it knows, and takes nothing when there is a newer.
create table queue_head (
    singleton boolean primary key default true check (singleton),
    version   bigint  not null default 0
);
insert into queue_head default values;

-- What limits remember: the bucket of tokens of a queue (its flow key is '') or of one of its flow keys, and whose turn was last. A row
-- that is not there is a full bucket.
create table queue_flows (
    queue    text             not null,
    flow_key text             not null,
    tokens   double precision not null,
    at       timestamptz      not null,
    last_key text,
    primary key (queue, flow_key)
) with (fillfactor = 50);
create index queue_flows_old on queue_flows (at);

-- The lanes of flow keys. One that nobody needs any more is given to another key of its queue: which key a task has, it says itself.
alter table lanes drop constraint lanes_flow_check;
alter table lanes add constraint lanes_flow_check check (char_length(flow) <= 128);

alter table tasks add column flow_key text;
alter table task_history add column flow_key text;
alter table schedules add column flow_key text;
-- Lanes that schedules keep for their tasks.
create index schedules_key_lanes on schedules (lane) where flow_key is not null;

-- The lanes that a claim looked at, some of which its tasks are in; null where an older version made it.
alter table claims add column lanes integer[];
