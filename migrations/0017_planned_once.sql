-- PostgreSQL plans the body of a function in SQL anew with every call, which took ten times as long as the look itself; that of
-- one in PL/pgSQL once a session.
create or replace function taskmaster_newest_event() returns bigint
    language plpgsql stable as
$$
begin
    return (select greatest(h.next_id, (select first_id + n from events order by first_id desc limit 1)) - 1 from event_head h);
end
$$;
