-- Schedules make tasks again and again. An occurrence is an instant that follows from the schedule alone; it has at most one run.
create table schedules (
    id                      uuid        primary key,
    -- rises with every change that a user makes
    revision                bigint      not null default 1,
    name                    text        unique check (char_length(name) between 1 and 100),
    cron                    text        check (char_length(cron) between 1 and 200),
    every_seconds           integer     check (every_seconds > 0),
    time_zone               text        not null,
    starts_at               timestamptz,
    ends_at                 timestamptz,
    jitter_seconds          integer     not null check (jitter_seconds >= 0),
    -- 0 allow, 1 skip, 2 queue one, 3 cancel the old
    overlap                 smallint    not null check (overlap between 0 and 3),
    -- 0 last, 1 none, 2 all
    catch_up                smallint    not null check (catch_up between 0 and 2),
    catch_up_window_seconds integer     not null check (catch_up_window_seconds > 0),
    pause_after_failures    integer     check (pause_after_failures > 0),
    -- what its tasks are like, as in `tasks`
    lane                    integer     not null,
    timeout_seconds         integer     not null,
    priority                smallint    not null,
    max_attempts            smallint    not null,
    work                    json        not null,
    retry                   json,
    tags                    jsonb,
    created_at              timestamptz not null default now(),
    changed_at              timestamptz not null default now(),
    paused_at               timestamptz,
    pause_reason            text,
    -- The next occurrence that has no run yet; null when none is left.
    next_fire_at            timestamptz,
    -- When a coordinator is to look at it: a little before, where nothing must be known of the run before.
    wake_at                 timestamptz,
    -- No occurrence is left.
    is_over                 boolean     not null default false,
    -- Of the newest occurrence that was given a task.
    last_fire_at            timestamptz,
    last_task_id            uuid,
    -- The occurrence whose task waits for the one before.
    waiting_fire_at         timestamptz,
    -- Failures of occurrences before do not count any more.
    failures_count_from     timestamptz not null default now(),
    constraint schedules_beat check ((cron is null) <> (every_seconds is null))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);

-- What is to be looked at next; and what a fault has disturbed, which nobody would look at.
create index schedules_due on schedules (wake_at) where paused_at is null and wake_at is not null;
create index schedules_disturbed on schedules (id) where paused_at is null and wake_at is null and not is_over;
create index schedules_waiting on schedules (id) where waiting_fire_at is not null;

-- What became of occurrences.
create table schedule_runs (
    schedule_id uuid        not null,
    fire_at     timestamptz not null,
    -- 0 an occurrence, 1 occurrences that were missed together, 2 a run that was asked for by hand
    kind        smallint    not null check (kind in (0, 1, 2)),
    -- 0 fired, 1 waiting, 2 skipped, 3 missed
    state       smallint    not null check (state between 0 and 3),
    -- 0 the schedule, 1 by hand, 2 a backfill
    trigger     smallint    not null check (trigger between 0 and 2),
    run_at      timestamptz,
    task_id     uuid,
    reason      text,
    -- of missed ones: the last of them, and how many they are
    last_at     timestamptz,
    n           integer,
    -- However many coordinators fire, and whatever happens to them: one run.
    constraint schedule_runs_pkey primary key (schedule_id, fire_at, kind)
);

create index schedule_runs_old on schedule_runs (fire_at);

-- Tasks of schedules that have just FAILED: looked at soon, and taken away.
create table schedule_failures (
    id          bigint generated always as identity primary key,
    schedule_id uuid not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

alter table tasks add column schedule_id uuid;
alter table task_history add column schedule_id uuid;

-- Events of schedules: 9 missed, 10 skipped, 11 paused, 12 resumed.
alter table event_inbox add column schedules uuid[] not null default '{}';
alter table events add column schedules uuid[] not null default '{}';
alter table event_inbox alter column schedules set statistics 0;
alter table events alter column schedules set statistics 0;
