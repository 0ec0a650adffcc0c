-- Every statement that moves tasks leaves one row here for all of them. The rows are moved to `events` in one order that never
-- changes: a reader that goes by number misses nothing, however late a transaction commits.
create table event_inbox (
    id          bigint generated always as identity primary key,
    at          timestamptz not null default now(),
    -- 0 scheduled, 1 picked, 2 started, 3 completed, 4 retrying, 5 failed, 6 cancelled, 7 worker joined, 8 worker lost
    type        smallint    not null,
    -- what the tasks were before and are now; null where there is none
    from_status smallint,
    to_status   smallint,
    task_ids    uuid[]      not null default '{}',
    lanes       integer[]   not null default '{}',
    attempts    smallint[]  not null default '{}',
    workers     text[]      not null default '{}',
    -- events in this row
    n           integer     not null check (n > 0)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

create table events (
    -- the number of the first event in this row; the row has n of them
    first_id bigint primary key,
    at       timestamptz not null,
    type     smallint    not null,
    n        integer     not null,
    task_ids uuid[]      not null,
    lanes    integer[]   not null,
    attempts smallint[]  not null,
    workers  text[]      not null
);

create index events_at on events (at);

-- One row: the number of the next event. Whoever locks it moves events.
create table event_head (
    singleton boolean primary key default true check (singleton),
    next_id   bigint  not null
);
insert into event_head (next_id) values (1);

-- Tasks in each state, kept as events are moved; sums over it are the statistics.
create table task_counts (
    lane   integer  not null,
    status smallint not null,
    n      bigint   not null,
    primary key (lane, status)
) with (fillfactor = 50);

-- Tasks created, completed and failed in ten seconds.
create table task_rates (
    at        timestamptz primary key,
    created   bigint not null,
    completed bigint not null,
    failed    bigint not null
) with (fillfactor = 50);
