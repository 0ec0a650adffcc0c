-- What the migrations make. Generated: see tests/schema.rs.

CREATE FUNCTION public.taskmaster_advance_events(rows_max integer, from_id bigint) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
declare
    counted bigint;
    head    bigint;
    moved   bigint;
begin
    -- Whoever locks the head moves events. The next statement sees what the one before has committed.
    perform from event_head for update skip locked;
    if not found then
        return 0;
    end if;
    select next_id, taskmaster_newest_event() + 1 into counted, head from event_head;

    with moved as (
        delete from event_inbox i where i.id in (select id from event_inbox where id >= from_id order by id limit rows_max)
        returning i.*
    ), logged as (
        insert into events (first_id, at, type, n, task_ids, lanes, attempts, workers, schedules)
        select head + coalesce(sum(m.n) over (order by m.id rows between unbounded preceding and 1 preceding), 0),
               m.at, m.type, m.n, m.task_ids, m.lanes, m.attempts, m.workers, m.schedules
          from moved m
    ), changed as (
        insert into task_count_changes (first_id, lane, status, n)
        select head, lane, status, sum(d)
          from (select unnest(lanes) as lane, to_status as status, 1 as d from moved where to_status is not null
                union all
                select unnest(lanes), from_status, -1 from moved where from_status is not null) each
         group by lane, status having sum(d) <> 0
    ), rated as (
        insert into task_rates (at, created, completed, failed)
        select to_timestamp(floor(extract(epoch from at) / 10) * 10), sum(n) filter (where type = 0), sum(n) filter (where type = 3),
               sum(n) filter (where type = 5)
          from (select at, type, n from moved union all select at, unnest(array [0, 3, 5]), 0 from moved) m
         where type in (0, 3, 5) group by 1 order by 1
        on conflict (at) do update set created = task_rates.created + excluded.created,
            completed = task_rates.completed + excluded.completed, failed = task_rates.failed + excluded.failed
    )
    select count(*) into moved from moved;
    if moved = 0 then
        return 0;
    end if;
    if (select count(*) from task_count_changes where first_id >= counted) >= 128 then
        perform taskmaster_count_events();
    end if;
    return moved;
end
$$;

CREATE FUNCTION public.taskmaster_count_events() RETURNS void
    LANGUAGE plpgsql
    AS $$
declare
    counted bigint;
begin
    select next_id into counted from event_head for update;
    insert into task_counts (lane, status, n)
    select c.lane, c.status, sum(c.n) from task_count_changes c
     where first_id >= counted group by c.lane, c.status having sum(c.n) <> 0 order by c.lane, c.status
    on conflict (lane, status) do update set n = task_counts.n + excluded.n;
    delete from task_count_changes where first_id >= counted;
    update event_head set next_id = taskmaster_newest_event() + 1 where next_id <= taskmaster_newest_event();
end
$$;

CREATE FUNCTION public.taskmaster_drop_partitions(kept_days integer) RETURNS SETOF text
    LANGUAGE plpgsql
    AS $$
declare
    partition record;
begin
    for partition in
        select child.relname as name
          from pg_inherits i
               join pg_class parent on parent.oid = i.inhparent
               join pg_class child on child.oid = i.inhrelid
         where parent.relname in ('task_history', 'attempts') and parent.relnamespace = current_schema()::regnamespace
           and to_date(right(child.relname, 7), 'YYYY_MM') + interval '1 month' < now() - make_interval(days => kept_days)
    loop
        execute format('drop table %I', partition.name);
        return next partition.name;
    end loop;
end
$$;

CREATE FUNCTION public.taskmaster_ensure_partitions(months_ahead integer) RETURNS void
    LANGUAGE plpgsql
    AS $$
declare
    base      date := date_trunc('month', now() at time zone 'UTC');
    month     date;
    parent    text;
    partition text;
begin
    perform pg_advisory_xact_lock(hashtext('taskmaster_partitions'));
    for i in -1..months_ahead loop
        month := base + make_interval(months => i);
        foreach parent in array array ['task_history', 'attempts'] loop
            partition := parent || '_' || to_char(month, 'YYYY_MM');
            if to_regclass(partition) is null then
                execute format(
                    'create table %I partition of %I for values from (%L) to (%L)', partition, parent,
                    month::timestamp at time zone 'UTC', (month + interval '1 month') at time zone 'UTC');
                perform taskmaster_sample_less(partition::regclass);
            end if;
        end loop;
    end loop;
end
$$;

CREATE FUNCTION public.taskmaster_newest_event() RETURNS bigint
    LANGUAGE plpgsql STABLE
    AS $$
begin
    return (select greatest(h.next_id, (select first_id + n from events order by first_id desc limit 1)) - 1 from event_head h);
end
$$;

CREATE FUNCTION public.taskmaster_sample_less(partition regclass) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    execute (select format('alter table %s %s', partition, string_agg(format('alter column %I set statistics 10', attname), ', '))
               from pg_attribute where attrelid = partition and attnum > 0 and not attisdropped);
end
$$;

CREATE TABLE public._sqlx_migrations (
    version bigint NOT NULL,
    description text NOT NULL,
    installed_on timestamp with time zone DEFAULT now() NOT NULL,
    success boolean NOT NULL,
    checksum bytea NOT NULL,
    execution_time bigint NOT NULL
);

CREATE TABLE public.api_keys (
    id text NOT NULL,
    name text NOT NULL,
    secret_hash bytea NOT NULL,
    previous_secret_hash bytea,
    previous_secret_expires_at timestamp with time zone,
    scopes text[] NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    last_used_at timestamp with time zone,
    CONSTRAINT api_keys_id_check CHECK ((id ~ '^[0-9A-Za-z]{12}$'::text)),
    CONSTRAINT api_keys_name_check CHECK (((char_length(name) >= 1) AND (char_length(name) <= 100))),
    CONSTRAINT api_keys_previous_secret_hash_check CHECK ((octet_length(previous_secret_hash) = 32)),
    CONSTRAINT api_keys_scopes_check CHECK ((cardinality(scopes) > 0)),
    CONSTRAINT api_keys_secret_hash_check CHECK ((octet_length(secret_hash) = 32))
);

CREATE TABLE public.attempts (
    task_id uuid NOT NULL,
    claim bigint NOT NULL,
    ended_at timestamp with time zone NOT NULL,
    picked_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone,
    attempt smallint NOT NULL,
    status smallint NOT NULL,
    worker_id text NOT NULL,
    result json,
    error json,
    CONSTRAINT attempts_status_check CHECK ((status = ANY (ARRAY[3, 4, 5])))
)
PARTITION BY RANGE (ended_at);

CREATE TABLE public.claims (
    id bigint NOT NULL,
    coordinator_id uuid NOT NULL,
    claimed_at timestamp with time zone DEFAULT now() NOT NULL,
    task_ids uuid[] NOT NULL,
    lanes integer[]
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500', vacuum_truncate='false', toast.vacuum_truncate='false');
ALTER TABLE ONLY public.claims ALTER COLUMN task_ids SET STATISTICS 0;
ALTER TABLE ONLY public.claims ALTER COLUMN task_ids SET COMPRESSION lz4;

ALTER TABLE public.claims ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.claims_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.coordinators (
    id uuid NOT NULL,
    address text NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    seen_at timestamp with time zone DEFAULT now() NOT NULL
)
WITH (fillfactor='50');

CREATE TABLE public.event_head (
    singleton boolean DEFAULT true NOT NULL,
    next_id bigint NOT NULL,
    CONSTRAINT event_head_singleton_check CHECK (singleton)
);

CREATE TABLE public.task_count_changes (
    first_id bigint NOT NULL,
    lane integer NOT NULL,
    status smallint NOT NULL,
    n bigint NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500', vacuum_truncate='false');

CREATE TABLE public.task_counts (
    lane integer NOT NULL,
    status smallint NOT NULL,
    n bigint NOT NULL
)
WITH (fillfactor='50');

CREATE VIEW public.current_task_counts AS
 SELECT task_counts.lane,
    task_counts.status,
    task_counts.n
   FROM public.task_counts
UNION ALL
 SELECT task_count_changes.lane,
    task_count_changes.status,
    task_count_changes.n
   FROM public.task_count_changes
  WHERE (task_count_changes.first_id >= ( SELECT event_head.next_id
           FROM public.event_head));

CREATE TABLE public.detached (
    task_id uuid NOT NULL,
    claim bigint NOT NULL,
    deadline_at timestamp with time zone NOT NULL,
    heartbeat_seconds integer,
    heard_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    percent double precision,
    message text,
    CONSTRAINT detached_heartbeat_seconds_check CHECK ((heartbeat_seconds > 0))
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='500', autovacuum_vacuum_cost_delay='0');

CREATE TABLE public.event_inbox (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    type smallint NOT NULL,
    from_status smallint,
    to_status smallint,
    task_ids uuid[] DEFAULT '{}'::uuid[] NOT NULL,
    lanes integer[] DEFAULT '{}'::integer[] NOT NULL,
    attempts smallint[] DEFAULT '{}'::smallint[] NOT NULL,
    workers text[] DEFAULT '{}'::text[] NOT NULL,
    n integer NOT NULL,
    schedules uuid[] DEFAULT '{}'::uuid[] NOT NULL,
    CONSTRAINT event_inbox_n_check CHECK ((n > 0))
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500', vacuum_truncate='false', toast.vacuum_truncate='false');
ALTER TABLE ONLY public.event_inbox ALTER COLUMN task_ids SET STATISTICS 0;
ALTER TABLE ONLY public.event_inbox ALTER COLUMN task_ids SET COMPRESSION lz4;
ALTER TABLE ONLY public.event_inbox ALTER COLUMN lanes SET STATISTICS 0;
ALTER TABLE ONLY public.event_inbox ALTER COLUMN lanes SET COMPRESSION lz4;
ALTER TABLE ONLY public.event_inbox ALTER COLUMN attempts SET STATISTICS 0;
ALTER TABLE ONLY public.event_inbox ALTER COLUMN attempts SET COMPRESSION lz4;
ALTER TABLE ONLY public.event_inbox ALTER COLUMN workers SET STATISTICS 0;
ALTER TABLE ONLY public.event_inbox ALTER COLUMN workers SET COMPRESSION lz4;
ALTER TABLE ONLY public.event_inbox ALTER COLUMN schedules SET STATISTICS 0;
ALTER TABLE ONLY public.event_inbox ALTER COLUMN schedules SET COMPRESSION lz4;

ALTER TABLE public.event_inbox ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.event_inbox_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.events (
    first_id bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    type smallint NOT NULL,
    n integer NOT NULL,
    task_ids uuid[] NOT NULL,
    lanes integer[] NOT NULL,
    attempts smallint[] NOT NULL,
    workers text[] NOT NULL,
    schedules uuid[] DEFAULT '{}'::uuid[] NOT NULL
);
ALTER TABLE ONLY public.events ALTER COLUMN task_ids SET STATISTICS 0;
ALTER TABLE ONLY public.events ALTER COLUMN lanes SET STATISTICS 0;
ALTER TABLE ONLY public.events ALTER COLUMN attempts SET STATISTICS 0;
ALTER TABLE ONLY public.events ALTER COLUMN workers SET STATISTICS 0;
ALTER TABLE ONLY public.events ALTER COLUMN schedules SET STATISTICS 0;

CREATE TABLE public.hook_deliveries (
    id bigint NOT NULL,
    hook_id uuid NOT NULL,
    received_at timestamp with time zone DEFAULT now() NOT NULL,
    outcome text NOT NULL,
    verified boolean NOT NULL,
    delivery_id text,
    task_id uuid
);

ALTER TABLE public.hook_deliveries ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.hook_deliveries_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.hooks (
    id uuid NOT NULL,
    revision bigint DEFAULT 1 NOT NULL,
    verification text NOT NULL,
    settings json NOT NULL,
    secret bytea NOT NULL,
    previous_secret bytea,
    previous_secret_expires_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT hooks_verification_check CHECK ((verification = ANY (ARRAY['github'::text, 'stripe'::text, 'standard_webhooks'::text, 'shared_secret'::text, 'secret_url'::text])))
);

CREATE TABLE public.idempotency_keys (
    principal text NOT NULL,
    key text NOT NULL,
    payload_hash bytea NOT NULL,
    task_ids uuid[] NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    CONSTRAINT idempotency_keys_key_check CHECK (((char_length(key) >= 1) AND (char_length(key) <= 255)))
);

CREATE TABLE public.installation (
    singleton boolean DEFAULT true NOT NULL,
    public_url text,
    attempt_secret text NOT NULL,
    signing_secret text NOT NULL,
    signing_secret_at timestamp with time zone DEFAULT now() NOT NULL,
    previous_secret text,
    previous_secret_at timestamp with time zone,
    previous_secret_expires_at timestamp with time zone,
    CONSTRAINT installation_singleton_check CHECK (singleton)
);

CREATE TABLE public.lanes (
    id integer NOT NULL,
    queue text NOT NULL,
    kind smallint NOT NULL,
    flow text DEFAULT ''::text NOT NULL,
    requires jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT lanes_flow_check CHECK ((char_length(flow) <= 128)),
    CONSTRAINT lanes_kind_check CHECK ((kind = ANY (ARRAY[0, 1, 2]))),
    CONSTRAINT lanes_queue_check CHECK (((char_length(queue) >= 1) AND (char_length(queue) <= 64))),
    CONSTRAINT lanes_requires_check CHECK ((jsonb_typeof(requires) = 'object'::text))
);

ALTER TABLE public.lanes ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.lanes_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.queue_flows (
    queue text NOT NULL,
    flow_key text NOT NULL,
    tokens double precision NOT NULL,
    at timestamp with time zone NOT NULL,
    last_key text
)
WITH (fillfactor='50');

CREATE TABLE public.queue_head (
    singleton boolean DEFAULT true NOT NULL,
    version bigint DEFAULT 0 NOT NULL,
    CONSTRAINT queue_head_singleton_check CHECK (singleton)
);

CREATE TABLE public.queues (
    queue text NOT NULL,
    revision bigint DEFAULT 1 NOT NULL,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    paused_at timestamp with time zone,
    pause_reason text,
    concurrency integer,
    key_concurrency integer,
    rate_count integer,
    rate_seconds integer,
    key_rate_count integer,
    key_rate_seconds integer,
    max_attempts smallint,
    timeout_seconds integer,
    retry json,
    CONSTRAINT queues_concurrency_check CHECK ((concurrency > 0)),
    CONSTRAINT queues_key_concurrency_check CHECK ((key_concurrency > 0)),
    CONSTRAINT queues_key_rate CHECK (((key_rate_count IS NULL) = (key_rate_seconds IS NULL))),
    CONSTRAINT queues_key_rate_count_check CHECK ((key_rate_count > 0)),
    CONSTRAINT queues_key_rate_seconds_check CHECK ((key_rate_seconds > 0)),
    CONSTRAINT queues_max_attempts_check CHECK (((max_attempts >= 1) AND (max_attempts <= 100))),
    CONSTRAINT queues_paused CHECK (((paused_at IS NOT NULL) OR (pause_reason IS NULL))),
    CONSTRAINT queues_queue_check CHECK (((char_length(queue) >= 1) AND (char_length(queue) <= 64))),
    CONSTRAINT queues_rate CHECK (((rate_count IS NULL) = (rate_seconds IS NULL))),
    CONSTRAINT queues_rate_count_check CHECK ((rate_count > 0)),
    CONSTRAINT queues_rate_seconds_check CHECK ((rate_seconds > 0)),
    CONSTRAINT queues_timeout_seconds_check CHECK (((timeout_seconds >= 1) AND (timeout_seconds <= 86400)))
);

CREATE UNLOGGED TABLE public.quota_use (
    gateway_id uuid NOT NULL,
    clients text[] NOT NULL,
    admitted bigint[] NOT NULL,
    told_at timestamp with time zone DEFAULT now() NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='200');

CREATE TABLE public.schedule_failures (
    id bigint NOT NULL,
    schedule_id uuid NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500');

ALTER TABLE public.schedule_failures ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.schedule_failures_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.schedule_runs (
    schedule_id uuid NOT NULL,
    fire_at timestamp with time zone NOT NULL,
    kind smallint NOT NULL,
    state smallint NOT NULL,
    trigger smallint NOT NULL,
    run_at timestamp with time zone,
    task_id uuid,
    reason text,
    last_at timestamp with time zone,
    n integer,
    CONSTRAINT schedule_runs_kind_check CHECK ((kind = ANY (ARRAY[0, 1, 2]))),
    CONSTRAINT schedule_runs_state_check CHECK (((state >= 0) AND (state <= 3))),
    CONSTRAINT schedule_runs_trigger_check CHECK (((trigger >= 0) AND (trigger <= 2)))
);

CREATE TABLE public.schedules (
    id uuid NOT NULL,
    revision bigint DEFAULT 1 NOT NULL,
    name text,
    cron text,
    every_seconds integer,
    time_zone text NOT NULL,
    starts_at timestamp with time zone,
    ends_at timestamp with time zone,
    jitter_seconds integer NOT NULL,
    overlap smallint NOT NULL,
    catch_up smallint NOT NULL,
    catch_up_window_seconds integer NOT NULL,
    pause_after_failures integer,
    lane integer NOT NULL,
    timeout_seconds integer NOT NULL,
    priority smallint NOT NULL,
    max_attempts smallint NOT NULL,
    work json NOT NULL,
    retry json,
    tags jsonb,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    paused_at timestamp with time zone,
    pause_reason text,
    next_fire_at timestamp with time zone,
    wake_at timestamp with time zone,
    is_over boolean DEFAULT false NOT NULL,
    last_fire_at timestamp with time zone,
    last_task_id uuid,
    waiting_fire_at timestamp with time zone,
    failures_count_from timestamp with time zone DEFAULT now() NOT NULL,
    callbacks json,
    flow_key text,
    CONSTRAINT schedules_beat CHECK (((cron IS NULL) <> (every_seconds IS NULL))),
    CONSTRAINT schedules_catch_up_check CHECK (((catch_up >= 0) AND (catch_up <= 2))),
    CONSTRAINT schedules_catch_up_window_seconds_check CHECK ((catch_up_window_seconds > 0)),
    CONSTRAINT schedules_cron_check CHECK (((char_length(cron) >= 1) AND (char_length(cron) <= 200))),
    CONSTRAINT schedules_every_seconds_check CHECK ((every_seconds > 0)),
    CONSTRAINT schedules_jitter_seconds_check CHECK ((jitter_seconds >= 0)),
    CONSTRAINT schedules_name_check CHECK (((char_length(name) >= 1) AND (char_length(name) <= 100))),
    CONSTRAINT schedules_overlap_check CHECK (((overlap >= 0) AND (overlap <= 3))),
    CONSTRAINT schedules_pause_after_failures_check CHECK ((pause_after_failures > 0))
)
WITH (fillfactor='70', autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='500', autovacuum_vacuum_cost_delay='0');

CREATE TABLE public.task_history (
    id uuid NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    run_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone NOT NULL,
    scheduled_at timestamp with time zone NOT NULL,
    claim bigint NOT NULL,
    picked_at timestamp with time zone,
    started_at timestamp with time zone,
    cancel_requested_at timestamp with time zone,
    lane integer NOT NULL,
    timeout_seconds integer NOT NULL,
    priority smallint NOT NULL,
    status smallint NOT NULL,
    attempt smallint NOT NULL,
    max_attempts smallint NOT NULL,
    hand_backs integer NOT NULL,
    lost_workers smallint NOT NULL,
    worker_id text,
    work json NOT NULL,
    retry json,
    tags jsonb,
    result json,
    error json,
    schedule_id uuid,
    callbacks json,
    flow_key text,
    trace text,
    CONSTRAINT task_history_status_check CHECK ((status = ANY (ARRAY[3, 4, 5])))
)
PARTITION BY RANGE (finished_at);

CREATE TABLE public.task_rates (
    at timestamp with time zone NOT NULL,
    created bigint NOT NULL,
    completed bigint NOT NULL,
    failed bigint NOT NULL
)
WITH (fillfactor='50');

CREATE TABLE public.tasks (
    id uuid NOT NULL,
    run_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone NOT NULL,
    scheduled_at timestamp with time zone NOT NULL,
    claim bigint DEFAULT 0 NOT NULL,
    picked_at timestamp with time zone,
    started_at timestamp with time zone,
    cancel_requested_at timestamp with time zone,
    lane integer NOT NULL,
    timeout_seconds integer NOT NULL,
    priority smallint NOT NULL,
    status smallint DEFAULT 0 NOT NULL,
    attempt smallint DEFAULT 0 NOT NULL,
    max_attempts smallint NOT NULL,
    hand_backs integer DEFAULT 0 NOT NULL,
    lost_workers smallint DEFAULT 0 NOT NULL,
    worker_id text,
    work json NOT NULL,
    retry json,
    tags jsonb,
    result json,
    error json,
    schedule_id uuid,
    callbacks json,
    flow_key text,
    trace text,
    CONSTRAINT tasks_check CHECK (((attempt >= 0) AND (attempt <= max_attempts))),
    CONSTRAINT tasks_claimed CHECK (((status = 0) OR ((claim > 0) AND (worker_id IS NOT NULL) AND (picked_at IS NOT NULL)))),
    CONSTRAINT tasks_max_attempts_check CHECK (((max_attempts >= 1) AND (max_attempts <= 100))),
    CONSTRAINT tasks_priority_check CHECK (((priority >= 0) AND (priority <= 9))),
    CONSTRAINT tasks_started CHECK (((status <> 2) OR ((started_at IS NOT NULL) AND (attempt > 0)))),
    CONSTRAINT tasks_status_check CHECK ((status = ANY (ARRAY[0, 1, 2]))),
    CONSTRAINT tasks_timeout_seconds_check CHECK (((timeout_seconds >= 1) AND (timeout_seconds <= 86400)))
)
WITH (autovacuum_vacuum_scale_factor='0.01', autovacuum_vacuum_threshold='1000', autovacuum_analyze_scale_factor='0.05', autovacuum_vacuum_cost_delay='0', vacuum_truncate='false', fillfactor='42', toast.vacuum_truncate='false');

CREATE TABLE public.url_workers (
    id text NOT NULL,
    url text NOT NULL,
    slots integer NOT NULL,
    abilities jsonb NOT NULL,
    labels jsonb NOT NULL,
    push_secret text NOT NULL,
    adopter uuid,
    unreachable_since timestamp with time zone,
    last_error text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT url_workers_id_check CHECK (((char_length(id) >= 1) AND (char_length(id) <= 128))),
    CONSTRAINT url_workers_slots_check CHECK (((slots >= 1) AND (slots <= 1000)))
);

CREATE TABLE public.webhook_deliveries (
    id uuid NOT NULL,
    webhook_id uuid,
    message_id text NOT NULL,
    event_type text NOT NULL,
    event_id bigint,
    task_id uuid,
    replay boolean DEFAULT false NOT NULL,
    secret text,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.webhook_driver (
    singleton boolean DEFAULT true NOT NULL,
    cursor bigint DEFAULT 0 NOT NULL,
    callbacks_after_event bigint,
    CONSTRAINT webhook_driver_singleton_check CHECK (singleton)
);

CREATE TABLE public.webhook_series (
    webhook_id uuid NOT NULL,
    series bytea NOT NULL,
    failed_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.webhooks (
    id uuid NOT NULL,
    lane integer NOT NULL,
    url text NOT NULL,
    description text,
    events text[] NOT NULL,
    queues text[] DEFAULT '{}'::text[] NOT NULL,
    tags text[] DEFAULT '{}'::text[] NOT NULL,
    only_when text,
    headers json NOT NULL,
    retry json,
    max_attempts smallint NOT NULL,
    timeout_seconds integer NOT NULL,
    secret text NOT NULL,
    previous_secret text,
    previous_secret_expires_at timestamp with time zone,
    after_event bigint NOT NULL,
    disabled_reason text,
    disabled_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    delivered bigint DEFAULT 0 NOT NULL,
    failed_attempts bigint DEFAULT 0 NOT NULL,
    last_success_at timestamp with time zone,
    last_failure_at timestamp with time zone,
    failing_since timestamp with time zone,
    missed_events_at timestamp with time zone,
    CONSTRAINT webhooks_disabled CHECK (((disabled_reason IS NULL) = (disabled_at IS NULL))),
    CONSTRAINT webhooks_disabled_reason_check CHECK ((disabled_reason = ANY (ARRAY['by_request'::text, 'gone'::text, 'failing'::text, 'backlog'::text]))),
    CONSTRAINT webhooks_events_check CHECK ((cardinality(events) > 0)),
    CONSTRAINT webhooks_max_attempts_check CHECK (((max_attempts >= 1) AND (max_attempts <= 100))),
    CONSTRAINT webhooks_only_when_check CHECK ((only_when = ANY (ARRAY['failures'::text, 'changes'::text, 'recovery'::text]))),
    CONSTRAINT webhooks_timeout_seconds_check CHECK (((timeout_seconds >= 1) AND (timeout_seconds <= 30)))
)
WITH (fillfactor='50');

CREATE TABLE public.workers (
    id text NOT NULL,
    address text NOT NULL,
    slots integer NOT NULL,
    held integer NOT NULL,
    abilities jsonb NOT NULL,
    labels jsonb NOT NULL,
    draining boolean NOT NULL,
    drain_requested boolean DEFAULT false NOT NULL,
    home uuid NOT NULL,
    joined_at timestamp with time zone DEFAULT now() NOT NULL,
    seen_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT workers_id_check CHECK (((char_length(id) >= 1) AND (char_length(id) <= 128))),
    CONSTRAINT workers_slots_check CHECK (((slots >= 1) AND (slots <= 1000)))
)
WITH (fillfactor='50');

ALTER TABLE ONLY public._sqlx_migrations
    ADD CONSTRAINT _sqlx_migrations_pkey PRIMARY KEY (version);

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.attempts
    ADD CONSTRAINT attempts_pkey PRIMARY KEY (task_id, claim, ended_at);

ALTER TABLE ONLY public.claims
    ADD CONSTRAINT claims_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.coordinators
    ADD CONSTRAINT coordinators_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.detached
    ADD CONSTRAINT detached_pkey PRIMARY KEY (task_id);

ALTER TABLE ONLY public.event_head
    ADD CONSTRAINT event_head_pkey PRIMARY KEY (singleton);

ALTER TABLE ONLY public.event_inbox
    ADD CONSTRAINT event_inbox_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (first_id);

ALTER TABLE ONLY public.hook_deliveries
    ADD CONSTRAINT hook_deliveries_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.hooks
    ADD CONSTRAINT hooks_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (principal, key);

ALTER TABLE ONLY public.installation
    ADD CONSTRAINT installation_pkey PRIMARY KEY (singleton);

ALTER TABLE ONLY public.lanes
    ADD CONSTRAINT lanes_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.queue_flows
    ADD CONSTRAINT queue_flows_pkey PRIMARY KEY (queue, flow_key);

ALTER TABLE ONLY public.queue_head
    ADD CONSTRAINT queue_head_pkey PRIMARY KEY (singleton);

ALTER TABLE ONLY public.queues
    ADD CONSTRAINT queues_pkey PRIMARY KEY (queue);

ALTER TABLE ONLY public.quota_use
    ADD CONSTRAINT quota_use_pkey PRIMARY KEY (gateway_id);

ALTER TABLE ONLY public.schedule_failures
    ADD CONSTRAINT schedule_failures_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.schedule_runs
    ADD CONSTRAINT schedule_runs_pkey PRIMARY KEY (schedule_id, fire_at, kind);

ALTER TABLE ONLY public.schedules
    ADD CONSTRAINT schedules_name_key UNIQUE (name);

ALTER TABLE ONLY public.schedules
    ADD CONSTRAINT schedules_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.task_count_changes
    ADD CONSTRAINT task_count_changes_pkey PRIMARY KEY (first_id, lane, status);

ALTER TABLE ONLY public.task_counts
    ADD CONSTRAINT task_counts_pkey PRIMARY KEY (lane, status);

ALTER TABLE ONLY public.task_history
    ADD CONSTRAINT task_history_pkey PRIMARY KEY (id, finished_at);

ALTER TABLE ONLY public.task_rates
    ADD CONSTRAINT task_rates_pkey PRIMARY KEY (at);

ALTER TABLE ONLY public.tasks
    ADD CONSTRAINT tasks_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.url_workers
    ADD CONSTRAINT url_workers_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.webhook_deliveries
    ADD CONSTRAINT webhook_deliveries_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.webhook_driver
    ADD CONSTRAINT webhook_driver_pkey PRIMARY KEY (singleton);

ALTER TABLE ONLY public.webhook_series
    ADD CONSTRAINT webhook_series_pkey PRIMARY KEY (webhook_id, series);

ALTER TABLE ONLY public.webhooks
    ADD CONSTRAINT webhooks_lane_key UNIQUE (lane);

ALTER TABLE ONLY public.webhooks
    ADD CONSTRAINT webhooks_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.workers
    ADD CONSTRAINT workers_pkey PRIMARY KEY (id);

CREATE INDEX api_keys_newest ON public.api_keys USING btree (created_at, id);

CREATE INDEX detached_expiring ON public.detached USING btree (expires_at);

CREATE INDEX events_at ON public.events USING btree (at);

CREATE INDEX hook_deliveries_newest ON public.hook_deliveries USING btree (hook_id, verified, id);

CREATE INDEX idempotency_keys_expired ON public.idempotency_keys USING btree (expires_at);

CREATE UNIQUE INDEX lanes_key ON public.lanes USING btree (queue, kind, flow, md5((requires)::text));

CREATE INDEX queue_flows_old ON public.queue_flows USING btree (at);

CREATE INDEX schedule_runs_old ON public.schedule_runs USING btree (fire_at);

CREATE INDEX schedules_disturbed ON public.schedules USING btree (id) WHERE ((paused_at IS NULL) AND (wake_at IS NULL) AND (NOT is_over));

CREATE INDEX schedules_due ON public.schedules USING btree (wake_at) WHERE ((paused_at IS NULL) AND (wake_at IS NOT NULL));

CREATE INDEX schedules_key_lanes ON public.schedules USING btree (lane) WHERE (flow_key IS NOT NULL);

CREATE INDEX schedules_waiting ON public.schedules USING btree (id) WHERE (waiting_fire_at IS NOT NULL);

CREATE INDEX task_history_cancelled ON ONLY public.task_history USING btree (id) WHERE (status = 5);

CREATE INDEX task_history_failed ON ONLY public.task_history USING btree (id) WHERE (status = 4);

CREATE INDEX tasks_cancelling ON public.tasks USING btree (id) WHERE (cancel_requested_at IS NOT NULL);

CREATE INDEX tasks_due ON public.tasks USING btree (lane, priority, run_at, id) WHERE (priority >= 0);

CREATE INDEX webhook_deliveries_newest ON public.webhook_deliveries USING btree (webhook_id, id);

CREATE INDEX webhook_deliveries_old ON public.webhook_deliveries USING btree (created_at);

CREATE UNIQUE INDEX webhook_deliveries_once ON public.webhook_deliveries USING btree (webhook_id, event_id) WHERE (NOT replay);

ALTER TABLE ONLY public.hook_deliveries
    ADD CONSTRAINT hook_deliveries_hook_id_fkey FOREIGN KEY (hook_id) REFERENCES public.hooks(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.webhook_series
    ADD CONSTRAINT webhook_series_webhook_id_fkey FOREIGN KEY (webhook_id) REFERENCES public.webhooks(id) ON DELETE CASCADE;
