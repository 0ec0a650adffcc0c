-- While there is little history, it grows by a tenth within seconds, and each time PostgreSQL gathers its statistics anew: with its
-- default of 30,000 rows that took 0.3 s of CPU time out of each ten, during which everything else waited. What is planned with
-- them does not need to be known that well. Partitions do not take this from what they are partitions of.
create function taskmaster_sample_less(partition regclass) returns void
    language plpgsql as
$$
begin
    execute (select format('alter table %s %s', partition, string_agg(format('alter column %I set statistics 10', attname), ', '))
               from pg_attribute where attrelid = partition and attnum > 0 and not attisdropped);
end
$$;

select taskmaster_sample_less(inhrelid::regclass) from pg_inherits
 where inhparent in ('task_history'::regclass, 'attempts'::regclass);

-- Makes the monthly partitions of this month, the one before, and so many months ahead.
create or replace function taskmaster_ensure_partitions(months_ahead integer) returns void
    language plpgsql as
$$
declare
    base      date := date_trunc('month', now() at time zone 'UTC');
    month     date;
    parent    text;
    partition text;
begin
    perform pg_advisory_xact_lock(hashtext('taskmaster_partitions'));
    for i in -1..months_ahead loop
        month := base + make_interval(months => i);
        foreach parent in array array ['task_history', 'attempts'] loop
            partition := parent || '_' || to_char(month, 'YYYY_MM');
            if to_regclass(partition) is null then
                execute format(
                    'create table %I partition of %I for values from (%L) to (%L)', partition, parent,
                    month::timestamp at time zone 'UTC', (month + interval '1 month') at time zone 'UTC');
                perform taskmaster_sample_less(partition::regclass);
            end if;
        end loop;
    end loop;
end
$$;
