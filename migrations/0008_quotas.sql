-- What gateways tell one another of the requests that they admitted: one row each. Not logged: after a crash it is empty, and every client has
-- at each gateway the quota that this one counts by itself.
create unlogged table quota_use (
    gateway_id uuid        primary key,
    -- names of clients, and how many requests of each were admitted
    clients    text[]      not null,
    admitted   bigint[]    not null,
    told_at    timestamptz not null default now()
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
