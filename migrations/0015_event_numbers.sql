-- A row that every batch of events changes has as many versions as there were batches while somebody holds a transaction open, and
-- whoever reads it walks over all of them. So batches only add rows, which are found from where they begin; the few rows that
-- are changed are changed once for many batches.

-- What events did to `task_counts` from the number `event_head.next_id` on. What is below is in `task_counts` itself.
create table task_count_changes (
    -- the number of the first event of the batch
    first_id bigint   not null,
    lane     integer  not null,
    status   smallint not null,
    n        bigint   not null,
    primary key (first_id, lane, status)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- The number of the newest event; 0 when there has been none.
create function taskmaster_newest_event() returns bigint
    language sql stable as
$$
select greatest(h.next_id, (select first_id + n from events order by first_id desc limit 1)) - 1 from event_head h
$$;

-- Tasks in each state, as of the newest event.
create view current_task_counts as
select lane, status, n from task_counts
union all
select lane, status, n from task_count_changes where first_id >= (select next_id from event_head);

-- Counts in `task_counts` what events have done, up to the newest one. From then on the log need not be there for the number of the next.
create function taskmaster_count_events() returns void
    language plpgsql as
$$
declare
    counted bigint;
begin
    select next_id into counted from event_head for update;
    insert into task_counts (lane, status, n)
    select c.lane, c.status, sum(c.n) from task_count_changes c
     where first_id >= counted group by c.lane, c.status having sum(c.n) <> 0 order by c.lane, c.status
    on conflict (lane, status) do update set n = task_counts.n + excluded.n;
    delete from task_count_changes where first_id >= counted;
    update event_head set next_id = taskmaster_newest_event() + 1 where next_id <= taskmaster_newest_event();
end
$$;

-- Moves so many rows of the inbox to the log, from this one on, gives them numbers that follow those before, and counts them. Gives back
-- how many; none while somebody else does it.
create function taskmaster_advance_events(rows_max integer, from_id bigint) returns bigint
    language plpgsql as
$$
declare
    counted bigint;
    head    bigint;
    moved   bigint;
begin
    -- Whoever locks the head moves events. The next statement sees what the one before has committed.
    perform from event_head for update skip locked;
    if not found then
        return 0;
    end if;
    select next_id, taskmaster_newest_event() + 1 into counted, head from event_head;

    with moved as (
        delete from event_inbox i where i.id in (select id from event_inbox where id >= from_id order by id limit rows_max)
        returning i.*
    ), logged as (
        insert into events (first_id, at, type, n, task_ids, lanes, attempts, workers, schedules)
        select head + coalesce(sum(m.n) over (order by m.id rows between unbounded preceding and 1 preceding), 0),
               m.at, m.type, m.n, m.task_ids, m.lanes, m.attempts, m.workers, m.schedules
          from moved m
    ), changed as (
        insert into task_count_changes (first_id, lane, status, n)
        select head, lane, status, sum(d)
          from (select unnest(lanes) as lane, to_status as status, 1 as d from moved where to_status is not null
                union all
                select unnest(lanes), from_status, -1 from moved where from_status is not null) each
         group by lane, status having sum(d) <> 0
    ), rated as (
        insert into task_rates (at, created, completed, failed)
        select to_timestamp(floor(extract(epoch from at) / 10) * 10), sum(n) filter (where type = 0), sum(n) filter (where type = 3),
               sum(n) filter (where type = 5)
          from (select at, type, n from moved union all select at, unnest(array [0, 3, 5]), 0 from moved) m
         where type in (0, 3, 5) group by 1 order by 1
        on conflict (at) do update set created = task_rates.created + excluded.created,
            completed = task_rates.completed + excluded.completed, failed = task_rates.failed + excluded.failed
    )
    select count(*) into moved from moved;
    if moved = 0 then
        return 0;
    end if;
    perform pg_notify('taskmaster_events', '');

    if (select count(*) from task_count_changes where first_id >= counted) >= 128 then
        perform taskmaster_count_events();
    end if;
    return moved;
end
$$;
