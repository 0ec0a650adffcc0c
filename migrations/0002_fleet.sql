create table coordinators (
    id         uuid primary key,
    address    text        not null,
    started_at timestamptz not null default now(),
    seen_at    timestamptz not null default now()
) with (fillfactor = 50);

create table workers (
    id              text primary key check (char_length(id) between 1 and 128),
    address         text        not null,
    slots           integer     not null check (slots between 1 and 1000),
    held            integer     not null,
    abilities       jsonb       not null,
    labels          jsonb       not null,
    draining        boolean     not null,
    drain_requested boolean     not null default false,
    home            uuid        not null,
    joined_at       timestamptz not null default now(),
    seen_at         timestamptz not null default now()
) with (fillfactor = 50);
