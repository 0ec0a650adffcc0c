-- A key that a client gave to a creating request: the same key and payload create nothing again.
create table idempotency_keys (
    principal    text        not null,
    key          text        not null check (char_length(key) between 1 and 255),
    payload_hash bytea       not null,
    task_ids     uuid[]      not null,
    expires_at   timestamptz not null,
    primary key (principal, key)
);

create index idempotency_keys_expired on idempotency_keys (expires_at);
