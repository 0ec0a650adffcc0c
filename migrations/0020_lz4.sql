-- The ids of what a statement has claimed or changed are compressed before they are stored: lz4 takes a fraction of the time that pglz
-- takes. A server that was built without it goes on with pglz.
do $$
begin
    alter table claims alter column task_ids set compression lz4;
    alter table event_inbox alter column task_ids set compression lz4;
    alter table event_inbox alter column lanes set compression lz4;
    alter table event_inbox alter column attempts set compression lz4;
    alter table event_inbox alter column workers set compression lz4;
    alter table event_inbox alter column schedules set compression lz4;
exception
    when feature_not_supported then null;
end
$$;
