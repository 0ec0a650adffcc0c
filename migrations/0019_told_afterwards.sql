-- A transaction that notifies holds a lock of the whole server until its commit is on the disk, so that no two of them share an fsync: what
-- happens often is told afterwards, by whoever did it.

-- Moves so many rows of the inbox to the log, from this one on, gives them numbers that follow those before, and counts them. Gives back
-- how many; none while somebody else does it. Whoever called it tells followers, once it is committed.
create or replace function taskmaster_advance_events(rows_max integer, from_id bigint) returns bigint
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
    if (select count(*) from task_count_changes where first_id >= counted) >= 128 then
        perform taskmaster_count_events();
    end if;
    return moved;
end
$$;

-- The tables through which everything passes would be shortened by each vacuum that finds their ends empty, while all others wait, and then
-- grow again.
alter table tasks set (vacuum_truncate = false, toast.vacuum_truncate = false);
alter table claims set (vacuum_truncate = false, toast.vacuum_truncate = false);
alter table event_inbox set (vacuum_truncate = false, toast.vacuum_truncate = false);
alter table task_count_changes set (vacuum_truncate = false);
