-- A lane may name labels that its workers must have: what a task `requires`. The digest keeps the key within what an index entry holds.
alter table lanes add column requires jsonb not null default '{}' check (jsonb_typeof(requires) = 'object');
alter table lanes drop constraint lanes_queue_kind_flow_key;
create unique index lanes_key on lanes (queue, kind, flow, md5(requires::text));
