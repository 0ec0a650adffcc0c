-- API keys. A secret is 256 random bits: nothing to guess, and so nothing that a slow hash would make harder. Its SHA-256 is kept.
-- Rows stay when keys are revoked or expire: for the record, and so that a page of the list is found again by its last id.
create table api_keys (
    id                         text        primary key check (id ~ '^[0-9A-Za-z]{12}$'),
    name                       text        not null check (char_length(name) between 1 and 100),
    secret_hash                bytea       not null check (octet_length(secret_hash) = 32),
    -- What the secret was before the last rotation: accepted until then.
    previous_secret_hash       bytea       check (octet_length(previous_secret_hash) = 32),
    previous_secret_expires_at timestamptz,
    scopes                     text[]      not null check (cardinality(scopes) > 0),
    created_at                 timestamptz not null default now(),
    expires_at                 timestamptz,
    revoked_at                 timestamptz,
    -- To the minute.
    last_used_at               timestamptz
);

create index api_keys_newest on api_keys (created_at, id);
