-- Live tasks are in `tasks`, finished ones in `task_history`: what is claimed from stays small for ever.
-- Status: 0 QUEUED, 1 PICKED, 2 STARTED, 3 COMPLETE, 4 FAILED, 5 CANCELLED.

-- Tasks that the same workers can run under the same limits share a lane: a queue, and a kind of work.
create table lanes (
    id    integer generated always as identity primary key,
    queue text     not null check (char_length(queue) between 1 and 64),
    -- 0 HTTP requests, 1 commands
    kind  smallint not null check (kind in (0, 1)),
    unique (queue, kind)
);

create table tasks (
    id                  uuid        not null,
    run_at              timestamptz not null,
    created_at          timestamptz not null,
    scheduled_at        timestamptz not null,
    -- The fence: the number of the newest claim; 0 before the first.
    claim               bigint      not null default 0,
    picked_at           timestamptz,
    started_at          timestamptz,
    cancel_requested_at timestamptz,
    lane                integer     not null references lanes (id),
    timeout_seconds     integer     not null check (timeout_seconds between 1 and 86400),
    priority            smallint    not null check (priority between 0 and 9),
    status              smallint    not null default 0 check (status in (0, 1, 2)),
    attempt             smallint    not null default 0 check (attempt between 0 and max_attempts),
    max_attempts        smallint    not null check (max_attempts between 1 and 100),
    hand_backs          integer     not null default 0,
    lost_workers        smallint    not null default 0,
    worker_id           text,
    -- {"command": …} | {"argv": …} | {"http": …}
    work                json        not null,
    -- null is the default policy
    retry               json,
    -- an array of words; null is none
    tags                jsonb,
    -- of the attempt that ended last
    result              json,
    error               json,
    constraint tasks_pkey primary key (id),
    constraint tasks_claimed check (status = 0 or (claim > 0 and worker_id is not null and picked_at is not null)),
    constraint tasks_started check (status <> 2 or (started_at is not null and attempt > 0))
) with (
    -- Room for the claim and the start to be HOT updates: neither touches an indexed column.
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0
);

-- The only other index: what is due, by lane and priority. Claimed tasks stay in it until they end.
create index tasks_due on tasks (lane, priority, run_at, id);

create table task_history (
    id                  uuid        not null,
    -- when it became COMPLETE, FAILED or CANCELLED
    finished_at         timestamptz not null,
    run_at              timestamptz not null,
    created_at          timestamptz not null,
    scheduled_at        timestamptz not null,
    claim               bigint      not null,
    picked_at           timestamptz,
    started_at          timestamptz,
    cancel_requested_at timestamptz,
    lane                integer     not null,
    timeout_seconds     integer     not null,
    priority            smallint    not null,
    status              smallint    not null check (status in (3, 4, 5)),
    attempt             smallint    not null,
    max_attempts        smallint    not null,
    hand_backs          integer     not null,
    lost_workers        smallint    not null,
    worker_id           text,
    work                json        not null,
    retry               json,
    tags                jsonb,
    result              json,
    error               json,
    constraint task_history_pkey primary key (id, finished_at)
) partition by range (finished_at);

-- The dead letters, and the cancelled ones: few among many.
create index task_history_failed on task_history (id) where status = 4;
create index task_history_cancelled on task_history (id) where status = 5;

-- Attempts before the one that the task's row tells of.
create table attempts (
    task_id    uuid        not null,
    claim      bigint      not null,
    ended_at   timestamptz not null,
    picked_at  timestamptz not null,
    started_at timestamptz,
    attempt    smallint    not null,
    status     smallint    not null check (status in (3, 4, 5)),
    worker_id  text        not null,
    result     json,
    error      json,
    constraint attempts_pkey primary key (task_id, claim, ended_at)
) partition by range (ended_at);

-- Makes the monthly partitions of this month, the one before, and so many months ahead.
create function taskmaster_ensure_partitions(months_ahead integer) returns void
    language plpgsql as
$$
declare
    base  date := date_trunc('month', now() at time zone 'UTC');
    month date;
    parent text;
begin
    perform pg_advisory_xact_lock(hashtext('taskmaster_partitions'));
    for i in -1..months_ahead loop
        month := base + make_interval(months => i);
        foreach parent in array array ['task_history', 'attempts'] loop
            execute format(
                'create table if not exists %I partition of %I for values from (%L) to (%L)',
                parent || '_' || to_char(month, 'YYYY_MM'), parent,
                month::timestamp at time zone 'UTC', (month + interval '1 month') at time zone 'UTC');
        end loop;
    end loop;
end
$$;

select taskmaster_ensure_partitions(3);

-- Drops the monthly partitions that ended more than so many days ago, and names them.
create function taskmaster_drop_partitions(kept_days integer) returns setof text
    language plpgsql as
$$
declare
    partition record;
begin
    for partition in
        select child.relname as name
          from pg_inherits i
               join pg_class parent on parent.oid = i.inhparent
               join pg_class child on child.oid = i.inhrelid
         where parent.relname in ('task_history', 'attempts') and parent.relnamespace = current_schema()::regnamespace
           and to_date(right(child.relname, 7), 'YYYY_MM') + interval '1 month' < now() - make_interval(days => kept_days)
    loop
        execute format('drop table %I', partition.name);
        return next partition.name;
    end loop;
end
$$;

-- One row a claim statement: which tasks it took. What is in flight is found here, without an index on the tasks.
create table claims (
    id             bigint generated always as identity primary key,
    coordinator_id uuid        not null,
    claimed_at     timestamptz not null default now(),
    task_ids       uuid[]      not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
