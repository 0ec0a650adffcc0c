-- :tasks that have ended, over the twelve months before this one, and as many of the future, of every priority, in eight queues.
-- Ids begin as those of real tasks do: with their time.
do $$
declare
    month date;
begin
    for i in 1..12 loop
        month := date_trunc('month', now() at time zone 'UTC') - make_interval(months => i);
        execute format('create table if not exists %I partition of task_history for values from (%L) to (%L)',
                       'task_history_' || to_char(month, 'YYYY_MM'),
                       month::timestamp at time zone 'UTC', (month + interval '1 month') at time zone 'UTC');
    end loop;
end
$$;

insert into lanes (queue, kind) select 'queue-' || i, 1 from generate_series(0, 7) i on conflict do nothing;

create temporary table lane_of as
select substr(queue, 7)::int as number, id from lanes where queue like 'queue-%';

create function pg_temp.id_at(at timestamptz) returns uuid language sql as $$
    select overlay(overlay(gen_random_uuid()::text placing substr(ms, 1, 8) || '-' || substr(ms, 9, 4) from 1) placing '7' from 15)::uuid
      from lpad(to_hex(floor(extract(epoch from at) * 1000)::bigint), 12, '0') ms
$$;

insert into task_history (id, finished_at, run_at, created_at, scheduled_at, claim, picked_at, started_at, lane, timeout_seconds,
       priority, status, attempt, max_attempts, hand_backs, lost_workers, worker_id, work)
select pg_temp.id_at(at), at, at, at, at, 1, at, at, l.id, 300, i % 10, 3 + (i % 1000 = 0)::int, 1, 3, 0, 0, 'worker-' || i % 50,
       '{"command":"true"}'
  from generate_series(1, :tasks) i
  cross join lateral (select date_trunc('month', now()) - (i % 360 + 1) * interval '1 day' - i % 86400 * interval '1 second' as at) a
  join lane_of l on l.number = i % 8;

insert into tasks (id, lane, priority, run_at, created_at, scheduled_at, max_attempts, timeout_seconds, work)
select pg_temp.id_at(now() - i * interval '1 millisecond'), l.id, i / 8 % 10, at, now(), at, 3, 300, '{"command":"true"}'
  from generate_series(1, :tasks) i
  cross join lateral (select now() + interval '1 day' + i * interval '1 second' as at) a
  join lane_of l on l.number = i % 8;

vacuum analyze tasks;
vacuum analyze task_history;
checkpoint;
