//! Events of the log become deliveries.
//!
//! One driver at a time, whoever locks the cursor, reads the log behind it and, in one transaction, leaves deliveries and moves the cursor.
//! Each event is therefore delivered once to each webhook that wants it, whatever dies meanwhile. Callbacks of tasks are made of the same
//! log. While nobody subscribes, and no task ever had a callback, nothing is read but one row.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::atomic::Ordering;

use sqlx::types::Json;
use sqlx::{PgConnection, Row};
use taskmaster_openapi::event::{Event, EventType};
use taskmaster_openapi::limits;
use taskmaster_openapi::task::{Callback, RetryPolicy, Task, TaskError};
use taskmaster_openapi::webhook::CALLBACKS_QUEUE;
use url::Url;
use uuid::Uuid;

use super::filter::{Failing, Series, kinds, series};
use super::message::{self, Facts};
use super::{LOCK, Subscription, add_lane, default_retry, webhook_columns};
use crate::create::{Callbacks, to_json};
use crate::database::Store;
use crate::error::StoreError;
use crate::news::news_sql;
use crate::pool::Transaction;
use crate::row::{TaskRow, from_row, status_from, task_columns};

/// Events that are looked at in one transaction: some more, since batches are not cut.
const EVENTS_MAX: i64 = 500;
/// No event is added to a step that may make as many deliveries of webhooks already: the step is one transaction.
const DELIVERIES_MAX: usize = 2_000;
/// Lanes of callbacks: those of one host share one.
const CALLBACK_LANES: usize = 8;

/// What a look at the log came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Driven {
    /// Somebody is to be told of events.
    pub subscribed: bool,
    /// There may be more to do at once.
    pub more: bool,
    pub deliveries: usize,
}

/// A delivery to make; its secret is not for output.
#[derive(Clone)]
pub(super) struct NewDelivery {
    pub id: Uuid,
    pub lane: i32,
    pub webhook_id: Option<Uuid>,
    pub message_id: String,
    pub event_type: String,
    pub event_id: Option<i64>,
    pub task_id: Option<Uuid>,
    pub secret: Option<String>,
    pub url: String,
    pub headers: std::collections::BTreeMap<String, String>,
    pub body: String,
    pub max_attempts: i16,
    pub retry: RetryPolicy,
    pub timeout_seconds: i32,
}

impl NewDelivery {
    /// A delivery to a webhook.
    pub(super) fn of(webhook: &Subscription, id: Uuid, message_id: String, event_type: &str, body: String) -> Self {
        let settings = &webhook.settings;
        Self {
            id,
            lane: webhook.lane,
            webhook_id: Some(webhook.id),
            message_id,
            event_type: event_type.to_owned(),
            event_id: None,
            task_id: None,
            secret: None,
            url: settings.url.clone(),
            headers: settings.headers.clone(),
            body,
            max_attempts: settings.max_attempts,
            retry: settings.retry.clone().unwrap_or_else(default_retry),
            timeout_seconds: settings.timeout_seconds,
        }
    }
}

/// The deliveries, as tasks and for the log. A delivery that is there already is not made again.
const INSERT: &str = concat!(
    "
with input as (
    select * from unnest($1::uuid[], $2::integer[], $3::uuid[], $4::text[], $5::text[], $6::bigint[], $7::uuid[], $8::text[],
                         $9::text[], $10::smallint[], $11::text[], $12::integer[])
      as i(id, lane, webhook_id, message_id, event_type, event_id, task_id, secret, work, max_attempts, retry, timeout_seconds)
), logged as (
    insert into webhook_deliveries (id, webhook_id, message_id, event_type, event_id, task_id, secret)
    select id, webhook_id, message_id, event_type, event_id, task_id, secret from input
    on conflict do nothing returning id
), made as (
    insert into tasks (lane, id, priority, run_at, created_at, scheduled_at, max_attempts, timeout_seconds, work, retry, tags)
    select i.lane, i.id, 0, clock_timestamp(), now(), clock_timestamp(), i.max_attempts, i.timeout_seconds, i.work::json,
           i.retry::json, to_jsonb(array [coalesce(i.webhook_id, i.task_id)])
      from input i join logged l on l.id = i.id
    returning lane, priority, run_at
), ",
    news_sql!("made", "null::bigint"),
    "
select (select due from news), count(*) from made"
);

impl Store {
    /// From now on tasks may have callbacks.
    pub(crate) async fn expect_callbacks(&self) -> Result<(), StoreError> {
        if self.expects_callbacks.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut transaction = self.begin().await?;
        sqlx::query(LOCK).execute(&mut *transaction).await?;
        let lanes: i64 = sqlx::query_scalar("select count(*) from lanes where queue = $1")
            .bind(CALLBACKS_QUEUE)
            .fetch_one(&mut *transaction)
            .await?;
        for _ in lanes as usize..CALLBACK_LANES {
            add_lane(&mut transaction, CALLBACKS_QUEUE).await?;
        }
        sqlx::query(
            "update webhook_driver set callbacks_after_event = taskmaster_newest_event() where callbacks_after_event is null",
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        self.lanes.load(&self.pool).await?;
        self.expects_callbacks.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Looks at some of the events behind the cursor, and leaves what is to be delivered.
    ///
    /// # Errors
    /// When the database is not available: then nothing was done.
    pub async fn drive_webhooks(&self) -> Result<Driven, StoreError> {
        let look: Look = sqlx::query_as(LOOK).fetch_one(&self.pool).await?;
        let Some(start) = look.start() else { return Ok(Driven { subscribed: false, more: false, deliveries: 0 }) };
        let nothing = Driven { subscribed: true, more: false, deliveries: 0 };
        if start >= look.head {
            return Ok(nothing);
        }
        let mut transaction = self.begin().await?;
        let locked: Option<i64> = sqlx::query_scalar("select cursor from webhook_driver for update skip locked")
            .fetch_optional(&mut *transaction)
            .await?;
        // Another drives at this moment.
        let Some(_) = locked else { return Ok(nothing) };
        let look: Look = sqlx::query_as(LOOK).fetch_one(&mut *transaction).await?;
        let Some(start) = look.start().filter(|start| *start < look.head) else { return Ok(nothing) };
        let page = self.events_after_on(&mut transaction, start, EVENTS_MAX).await?;
        if page.begins_after > start {
            missed(&mut transaction, page.begins_after).await?;
        }
        let webhooks = enabled(&mut transaction).await?;
        let events = affordable(&page.events, &webhooks);
        let last = events.last().map_or(page.begins_after, |event| event.id);
        let deliveries = self.deliveries(&mut transaction, &webhooks, events, look.callbacks_after_event).await?;
        insert(&mut transaction, &deliveries).await?;
        sqlx::query("update webhook_driver set cursor = $1").bind(last).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(Driven { subscribed: true, more: last < look.head, deliveries: deliveries.len() })
    }

    /// What is to be sent of these events.
    async fn deliveries(
        &self,
        connection: &mut PgConnection,
        webhooks: &[Subscription],
        events: &[Event],
        callbacks_after: Option<i64>,
    ) -> Result<Vec<NewDelivery>, StoreError> {
        let wanted = |event: &&Event| webhooks.iter().any(|webhook| webhook.may_want(event));
        let ends = |event: &&Event| ended(event) && callbacks_after.is_some_and(|after| event.id > after);
        let asked: HashSet<Uuid> =
            events.iter().filter(|event| wanted(event) || ends(event)).filter_map(|event| event.task_id).collect();
        let facts = facts(connection, asked.into_iter().collect()).await?;
        let mut deliveries = to_webhooks(connection, webhooks, events, &facts).await?;
        let has_callbacks =
            |event: &&Event| event.task_id.and_then(|id| facts.get(&id)).is_some_and(|facts| facts.has_callbacks);
        let ended: Vec<&Event> = events.iter().filter(|event| ends(event) && has_callbacks(event)).collect();
        deliveries.extend(self.to_callbacks(connection, &ended).await?);
        Ok(deliveries)
    }

    /// What is to be sent to the callbacks of tasks that have ended.
    async fn to_callbacks(
        &self,
        connection: &mut PgConnection,
        events: &[&Event],
    ) -> Result<Vec<NewDelivery>, StoreError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let lanes = self.callback_lanes(connection).await?;
        let ids: Vec<Uuid> = events.iter().filter_map(|event| event.task_id).collect();
        let tasks = self.tasks_with_callbacks(connection, &ids).await?;
        let mut deliveries = Vec::new();
        for event in events {
            let Some((task, callbacks)) = event.task_id.and_then(|id| tasks.get(&id)) else { continue };
            let failed = event.event_type == EventType::TaskFailed;
            let each = [
                ("end", callbacks.callback.as_ref()),
                ("failure", callbacks.failure_callback.as_ref().filter(|_| failed)),
            ];
            for (which, callback) in each.into_iter().filter_map(|(which, callback)| Some((which, callback?))) {
                deliveries.push(to_callback(event, task, which, callback, &lanes)?);
            }
        }
        Ok(deliveries)
    }

    async fn callback_lanes(&self, connection: &mut PgConnection) -> Result<Vec<i32>, StoreError> {
        let mut lanes = self.lanes.of_queue(CALLBACKS_QUEUE);
        if lanes.len() < CALLBACK_LANES {
            self.lanes.load(connection).await?;
            lanes = self.lanes.of_queue(CALLBACKS_QUEUE);
        }
        lanes.sort_unstable();
        Ok(lanes)
    }

    async fn tasks_with_callbacks(
        &self,
        connection: &mut PgConnection,
        ids: &[Uuid],
    ) -> Result<HashMap<Uuid, (Task, Callbacks)>, StoreError> {
        const SQL: &str = concat!(
            "select ",
            task_columns!(live),
            " from tasks where id = any($1) union all select ",
            task_columns!(history),
            " from task_history where id = any($1)"
        );
        let rows = sqlx::query(SQL).bind(ids).fetch_all(&mut *connection).await?;
        let mut tasks = HashMap::with_capacity(rows.len());
        for row in &rows {
            let Some(Json(callbacks)) = row.try_get::<Option<Json<Callbacks>>, _>("callbacks")? else { continue };
            let stored = <TaskRow as sqlx::FromRow<_>>::from_row(row)?;
            let task = stored.into_task(&self.lanes);
            tasks.insert(task.id, (task, callbacks));
        }
        Ok(tasks)
    }
}

/// Every webhook that is sent anything. None of them is deleted meanwhile.
async fn enabled(connection: &mut PgConnection) -> Result<Vec<Subscription>, StoreError> {
    let sql =
        concat!("select", webhook_columns!(), "from webhooks where disabled_reason is null order by id for key share");
    Ok(sqlx::query_as(sql).fetch_all(connection).await?)
}

/// As many of the first events as fill a step: some hundred, or one that very many want.
fn affordable<'a>(events: &'a [Event], webhooks: &[Subscription]) -> &'a [Event] {
    let mut deliveries = 0;
    let fit = events.iter().take_while(|event| {
        let fits = deliveries < DELIVERIES_MAX;
        deliveries += webhooks.iter().filter(|webhook| webhook.may_want(event)).count();
        fits
    });
    &events[..fit.count()]
}

impl Subscription {
    fn may_want(&self, event: &Event) -> bool {
        event.id > self.after_event && self.settings.filter.may_want(event)
    }
}

/// Where the cursor and the log stand.
#[derive(Debug)]
struct Look {
    cursor: i64,
    head: i64,
    callbacks_after_event: Option<i64>,
    webhooks_after_event: Option<i64>,
}

from_row!(Look { cursor, head, callbacks_after_event, webhooks_after_event });

const LOOK: &str = "
select cursor, taskmaster_newest_event() as head, callbacks_after_event,
       (select min(after_event) from webhooks where disabled_reason is null) as webhooks_after_event
  from webhook_driver";

impl Look {
    /// The last event that nobody wants to hear of any more; `None` while nobody subscribes.
    fn start(&self) -> Option<i64> {
        let after = [self.callbacks_after_event, self.webhooks_after_event].into_iter().flatten().min()?;
        Some(after.max(self.cursor))
    }
}

fn ended(event: &Event) -> bool {
    matches!(event.event_type, EventType::TaskCompleted | EventType::TaskFailed | EventType::TaskCancelled)
}

/// The log was dropped past the cursor: says so on each webhook, and here.
async fn missed(connection: &mut PgConnection, begins_after: i64) -> Result<(), StoreError> {
    tracing::error!(
        begins_after,
        "events were dropped before webhooks were made of them: no coordinator ran meanwhile"
    );
    sqlx::query("update webhooks set missed_events_at = now() where disabled_reason is null and after_event < $1")
        .bind(begins_after)
        .execute(connection)
        .await?;
    Ok(())
}

async fn facts(connection: &mut PgConnection, ids: Vec<Uuid>) -> Result<HashMap<Uuid, Facts>, StoreError> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    type Row = (Uuid, Option<Json<Vec<String>>>, i16, Option<Json<TaskError>>, bool);
    let rows: Vec<Row> = sqlx::query_as(
        "select id, tags, status, error, callbacks is not null from tasks where id = any($1)
         union all
         select id, tags, status, case when status = 4 then error end, callbacks is not null from task_history where id = any($1)",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    let fact = |(id, tags, status, error, has_callbacks): Row| {
        let (tags, status, error) =
            (tags.map(|json| json.0).unwrap_or_default(), Some(status_from(status)), error.map(|json| json.0));
        (id, Facts { tags, status, error, has_callbacks })
    };
    Ok(rows.into_iter().map(fact).collect())
}

/// What is to be sent to the webhooks, and which series now fail.
async fn to_webhooks(
    connection: &mut PgConnection,
    webhooks: &[Subscription],
    events: &[Event],
    facts: &HashMap<Uuid, Facts>,
) -> Result<Vec<NewDelivery>, StoreError> {
    let mut failing = known_failing(connection, webhooks, events, facts).await?;
    let before = failing.clone();
    let mut deliveries = Vec::new();
    for event in events {
        let facts = event.task_id.and_then(|id| facts.get(&id));
        let tags = facts.map(|facts| &facts.tags[..]).unwrap_or_default();
        let mut body = None;
        for webhook in webhooks.iter().filter(|webhook| webhook.may_want(event)) {
            if !webhook.settings.filter.wants(webhook.id, event, tags, &mut failing) {
                continue;
            }
            if body.is_none() {
                body = Some(message::of_event(event, facts)?);
            }
            let text = body.clone().unwrap_or_default();
            let message_id = message::webhook_message_id(webhook.id, event.id);
            let delivery = NewDelivery::of(webhook, Uuid::now_v7(), message_id, event.event_type.as_str(), text);
            deliveries.push(NewDelivery { event_id: Some(event.id), task_id: event.task_id, ..delivery });
        }
    }
    keep_failing(connection, &before, &failing).await?;
    Ok(deliveries)
}

/// Which of the series that these events may change failed last.
async fn known_failing(
    connection: &mut PgConnection,
    webhooks: &[Subscription],
    events: &[Event],
    facts: &HashMap<Uuid, Facts>,
) -> Result<Failing, StoreError> {
    let comparing: Vec<&Subscription> = webhooks
        .iter()
        .filter(|webhook| webhook.settings.filter.only.is_some_and(|only| kinds(only).len() > 1))
        .collect();
    let mut asked: HashSet<(Uuid, Series)> = HashSet::new();
    for webhook in comparing {
        for event in events.iter().filter(|event| webhook.may_want(event)) {
            let tags = event.task_id.and_then(|id| facts.get(&id)).map(|facts| &facts.tags[..]).unwrap_or_default();
            asked.insert((webhook.id, series(event.queue.as_deref().unwrap_or_default(), tags)));
        }
    }
    if asked.is_empty() {
        return Ok(Failing::new());
    }
    let (ids, keys): (Vec<Uuid>, Vec<Vec<u8>>) = asked.into_iter().map(|(id, series)| (id, series.to_vec())).unzip();
    let rows: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(
        "select s.webhook_id, s.series from unnest($1::uuid[], $2::bytea[]) a(webhook_id, series)
           join webhook_series s on s.webhook_id = a.webhook_id and s.series = a.series",
    )
    .bind(ids)
    .bind(keys)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().filter_map(|(id, series)| Some(((id, Series::try_from(series).ok()?), true))).collect())
}

async fn keep_failing(connection: &mut PgConnection, before: &Failing, now: &Failing) -> Result<(), StoreError> {
    let was = |key: &(Uuid, Series)| before.get(key).copied().unwrap_or(false);
    let of = |fails: bool| -> (Vec<Uuid>, Vec<Vec<u8>>) {
        let changed = now.iter().filter(|(key, now_fails)| **now_fails == fails && was(key) != fails);
        changed.map(|((id, series), _)| (*id, series.to_vec())).unzip()
    };
    let ((failing, failing_series), (whole, whole_series)) = (of(true), of(false));
    if failing.is_empty() && whole.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "with whole as (
            delete from webhook_series s using unnest($3::uuid[], $4::bytea[]) w(webhook_id, series)
             where s.webhook_id = w.webhook_id and s.series = w.series
         ) insert into webhook_series (webhook_id, series) select * from unnest($1::uuid[], $2::bytea[]) on conflict do nothing",
    )
    .bind(failing)
    .bind(failing_series)
    .bind(whole)
    .bind(whole_series)
    .execute(connection)
    .await?;
    Ok(())
}

fn to_callback(
    event: &Event,
    task: &Task,
    which: &str,
    callback: &Callback,
    lanes: &[i32],
) -> Result<NewDelivery, StoreError> {
    // There are lanes since the first task with a callback was accepted.
    let lane = lanes.get(place_of_host(&callback.url) % lanes.len().max(1)).copied();
    Ok(NewDelivery {
        id: Uuid::now_v7(),
        lane: lane.ok_or(StoreError::Defect(sqlx::Error::RowNotFound))?,
        webhook_id: None,
        message_id: message::callback_message_id(task.id, event.id, which),
        event_type: event.event_type.as_str().to_owned(),
        event_id: Some(event.id),
        task_id: Some(task.id),
        secret: callback.secret.clone(),
        url: callback.url.clone(),
        headers: callback.headers.clone(),
        body: message::of_end(event, task)?,
        max_attempts: limits::WEBHOOK_ATTEMPTS_DEFAULT as i16,
        retry: default_retry(),
        timeout_seconds: limits::WEBHOOK_TIMEOUT_SECONDS_DEFAULT as i32,
    })
}

/// The same number for the same host and port, in this process.
fn place_of_host(url: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    if let Ok(url) = Url::parse(url) {
        (url.host_str(), url.port_or_known_default()).hash(&mut hasher);
    }
    hasher.finish() as usize
}

/// Leaves the deliveries.
pub(super) async fn insert(transaction: &mut Transaction, deliveries: &[NewDelivery]) -> Result<(), StoreError> {
    if deliveries.is_empty() {
        return Ok(());
    }
    let work = |delivery: &NewDelivery| {
        let NewDelivery { url, headers, body, .. } = delivery.clone();
        to_json(&taskmaster_openapi::task::Work::Http(message::request(url, headers, body)))
    };
    let each = || deliveries.iter();
    let (due, _): (Option<String>, i64) = sqlx::query_as(INSERT)
        .bind(each().map(|d| d.id).collect::<Vec<_>>())
        .bind(each().map(|d| d.lane).collect::<Vec<_>>())
        .bind(each().map(|d| d.webhook_id).collect::<Vec<_>>())
        .bind(each().map(|d| d.message_id.clone()).collect::<Vec<_>>())
        .bind(each().map(|d| d.event_type.clone()).collect::<Vec<_>>())
        .bind(each().map(|d| d.event_id).collect::<Vec<_>>())
        .bind(each().map(|d| d.task_id).collect::<Vec<_>>())
        .bind(each().map(|d| d.secret.clone()).collect::<Vec<_>>())
        .bind(each().map(work).collect::<Result<Vec<_>, _>>()?)
        .bind(each().map(|d| d.max_attempts).collect::<Vec<_>>())
        .bind(each().map(|d| to_json(&d.retry)).collect::<Result<Vec<_>, _>>()?)
        .bind(each().map(|d| d.timeout_seconds).collect::<Vec<_>>())
        .fetch_one(&mut **transaction)
        .await?;
    transaction.due(due.as_deref());
    Ok(())
}
