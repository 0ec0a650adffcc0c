-- A lane may name labels that its workers must have: what a task `requires`. The digest keeps the key within what an index entry holds.
alter table lanes add column requires jsonb not null default '{}' check (jsonb_typeof(requires) = 'object');
alter table lanes drop constraint lanes_queue_kind_flow_key;
create unique index lanes_key on lanes (queue, kind, flow, md5(requires::text));

-- Workers that are only a URL: no heartbeats come from them. A live coordinator adopts each, and keeps its row in `workers`.
create table url_workers (
    id                text        primary key check (char_length(id) between 1 and 128),
    url               text        not null,
    slots             integer     not null check (slots between 1 and 1000),
    abilities         jsonb       not null,
    labels            jsonb       not null,
    -- Calls carry it: it must be readable.
    push_secret       text        not null,
    adopter           uuid,
    -- since when no call was taken, and why
    unreachable_since timestamptz,
    last_error        text,
    created_at        timestamptz not null default now(),
    changed_at        timestamptz not null default now()
);
