-- HTTP tasks: traces, signatures, and targets that finish after their answer.

-- HTTP work that has rules for answers, or ends by a callback, is for workers that know of that: 2 besides 0 HTTP requests, 1 commands.
alter table lanes drop constraint lanes_kind_check;
alter table lanes add constraint lanes_kind_check check (kind in (0, 1, 2));

-- `traceparent`, and after a blank `tracestate` where there is one
alter table tasks add column trace text;
alter table task_history add column trace text;

-- What an installation keeps for itself: one row.
create table installation (
    singleton                  boolean     primary key default true check (singleton),
    -- where the outside reaches a gateway, as the gateway said that was started last
    public_url                 text,
    -- The tokens of attempts are made with it.
    attempt_secret             text        not null,
    -- HTTP tasks are signed with it: it must be readable.
    signing_secret             text        not null,
    signing_secret_at          timestamptz not null default now(),
    previous_secret            text,
    previous_secret_at         timestamptz,
    previous_secret_expires_at timestamptz
);

-- 32 bytes each, of which 244 bits are chance.
insert into installation (attempt_secret, signing_secret)
select encode(decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'), 'base64'),
       'whsec_' || encode(decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'), 'base64');

-- Attempts whose target has answered 202 and will call back. No worker holds them: this is what keeps them in flight, and ends them.
create table detached (
    task_id           uuid        primary key,
    claim             bigint      not null,
    deadline_at       timestamptz not null,
    -- null where no heartbeats were asked for
    heartbeat_seconds integer     check (heartbeat_seconds > 0),
    -- when the target was heard last
    heard_at          timestamptz not null default now(),
    -- the deadline, or when the next heartbeat is too late
    expires_at        timestamptz not null,
    percent           float8,
    message           text
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);

create index detached_expiring on detached (expires_at);
