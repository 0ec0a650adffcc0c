-- Incoming webhooks: what another app sends becomes a task.
create table hooks (
    id                         uuid        primary key,
    -- rises with every change that a user makes
    revision                   bigint      not null default 1,
    verification               text        not null
        check (verification in ('github', 'stripe', 'standard_webhooks', 'shared_secret', 'secret_url')),
    -- name, headers, template, whether it is enabled: what can be changed
    settings                   json        not null,
    -- the key of signatures; where the sender shows the secret itself, its SHA-256
    secret                     bytea       not null,
    previous_secret            bytea,
    previous_secret_expires_at timestamptz,
    created_at                 timestamptz not null default now()
);

-- The last deliveries of each hook, as many as `hook_deliveries` of `store::hooks` keeps. That a delivery makes one task rests on
-- `idempotency_keys`, and not on these.
create table hook_deliveries (
    id          bigint      generated always as identity primary key,
    hook_id     uuid        not null references hooks (id) on delete cascade,
    received_at timestamptz not null default now(),
    outcome     text        not null,
    -- whether the sender was who it said it is: strangers do not push out what others sent
    verified    boolean     not null,
    delivery_id text,
    task_id     uuid
);

create index hook_deliveries_newest on hook_deliveries (hook_id, verified, id);
