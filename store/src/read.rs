//! Reading tasks: live and finished ones are one collection.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Row};
use taskmaster_openapi::gateway::TaskFilter;
use taskmaster_openapi::report::TaskClaim;
use taskmaster_openapi::task::{Attempt, Completion, Task, TaskError, TaskResult, TaskStatus};
use uuid::Uuid;

use crate::database::Store;
use crate::detached;
use crate::error::StoreError;
use crate::lanes::is_system;
use crate::row::{TaskRow, status_code, status_from, task_columns};

/// A page of tasks, and where the next one begins.
#[derive(Debug, Clone)]
pub struct TaskPage {
    pub tasks: Vec<Task>,
    /// The next page has ids below this; `None` is the end.
    pub next: Option<Uuid>,
}

/// Rows of each table that one page may look at: what does not match the filters is passed over, up to here.
const SCANNED_MAX: i64 = 5_000;
/// Rows that a page without filters looks at for each that it shows, where deliveries lie among the tasks.
const BESIDES_SYSTEM_TASKS: i64 = 4;
/// Clocks of gateways, which make the ids, may differ from the database's by so much.
const CLOCK_SLACK: TimeDelta = TimeDelta::minutes(5);

/// A window of a table's ids, newest first; and its edge, the lowest id in it when there is more below.
macro_rules! window {
    ($table:literal, $from:literal, $only:literal) => {
        concat!(
            $table,
            "_window as materialized (
                select * from ",
            $table,
            " where id < $1 and id >= ",
            $from,
            $only,
            " order by id desc limit $3
            ), ",
            $table,
            "_edge as materialized (
                select case when count(*) = $3 then (array_agg(id order by id))[1] end as id from ",
            $table,
            "_window
            )"
        )
    };
}

/// What passes the filters, and the edge: the cost of a page is bounded whatever the filters match.
macro_rules! chosen {
    ($which:tt, $table:literal, $edge:literal) => {
        concat!(
            "select ",
            task_columns!($which),
            ", (select id from ",
            $edge,
            ") as edge from ",
            $table,
            "_window
             where (lane > 0 or $5::integer[] is not null)
               and ($4::smallint is null or status = $4)
               and ($5::integer[] is null or lane = any($5))
               and ($6::jsonb is null or tags @> $6)
               and ($7::text is null or worker_id = $7)
               and ($8::timestamptz is null or created_at >= $8)
               and ($9::timestamptz is null or created_at < $9)
               and ($10::uuid is null or schedule_id = $10)"
        )
    };
}

/// The newest of what was chosen, and one more, which tells that there is more.
macro_rules! page {
    () => {
        " order by id desc limit $11 + 1"
    };
}

macro_rules! list_history {
    ($only:literal) => {
        concat!(
            "with ",
            window!("task_history", "$2", $only),
            chosen!(history, "task_history", "task_history_edge"),
            page!()
        )
    };
}

/// Both at one moment: what ends between two statements would be on the page twice, or not at all. Below the edge of what has ended
/// the others are not looked at: of them, what is gone piles up while somebody holds a transaction open.
const ALL: &str = concat!(
    "with ",
    window!("task_history", "$2", ""),
    ", ",
    window!("tasks", "greatest($2, (select id from task_history_edge))", ""),
    ", edge as materialized (
        select greatest((select id from task_history_edge), (select id from tasks_edge)) as id
    ) ",
    chosen!(history, "task_history", "edge"),
    " union all ",
    chosen!(live, "tasks", "edge"),
    page!()
);
const LIVE: &str = concat!("with ", window!("tasks", "$2", ""), chosen!(live, "tasks", "tasks_edge"), page!());
const HISTORY: &str = list_history!("");
// The partial indexes of the dead letters and of the cancelled ones.
const FAILED: &str = list_history!(" and status = 4");
const CANCELLED: &str = list_history!(" and status = 5");

impl Store {
    /// One task, live or finished.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn get(&self, id: Uuid) -> Result<Option<Task>, StoreError> {
        self.pool.ask(async |connection| self.get_on(connection, id).await).await
    }

    pub(crate) async fn get_on(&self, connection: &mut PgConnection, id: Uuid) -> Result<Option<Task>, StoreError> {
        let Some(row) = self.row(connection, id).await? else { return Ok(None) };
        let of = TaskClaim { task_id: id, claim: row.claim };
        let mut task = row.into_task(&self.lanes);
        let calls_back = task.http.as_ref().is_some_and(|http| http.completion == Completion::Callback);
        if calls_back && task.status == TaskStatus::Started {
            task.progress = detached::progress(connection, of).await?;
        }
        Ok(Some(task))
    }

    async fn row(&self, connection: &mut PgConnection, id: Uuid) -> Result<Option<TaskRow>, StoreError> {
        const SQL: &str = concat!(
            "select ",
            task_columns!(live),
            " from tasks where id = $1 union all select ",
            task_columns!(history),
            " from task_history where id = $1 limit 1"
        );
        let row: Option<TaskRow> = sqlx::query_as(SQL).bind(id).fetch_optional(&mut *connection).await?;
        self.lanes.ensure(connection, row.iter().map(|row| row.lane)).await?;
        Ok(row)
    }

    /// Tasks with ids below `before`, newest first. A page may be short, even empty, and still not be the last.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn list(
        &self,
        filter: &TaskFilter,
        before: Option<Uuid>,
        page_size: i64,
    ) -> Result<TaskPage, StoreError> {
        self.pool.ask(async |connection| self.list_on(connection, filter, before, page_size).await).await
    }

    pub(crate) async fn list_on(
        &self,
        connection: &mut PgConnection,
        filter: &TaskFilter,
        before: Option<Uuid>,
        page_size: i64,
    ) -> Result<TaskPage, StoreError> {
        let query = ListQuery::new(self, connection, filter, before, page_size).await?;
        let Scan { mut rows, edge } = query.scan(connection, statement(filter.status)).await?;
        // Below the edge, one of the tables has not been looked at.
        rows.retain(|row| edge.is_none_or(|edge| row.task.id >= edge));
        let more = rows.len() as i64 > page_size;
        rows.truncate(page_size as usize);
        let next = if more { rows.last().map(|row| row.task.id) } else { edge };
        self.lanes.ensure(connection, rows.iter().map(|row| row.lane)).await?;
        Ok(TaskPage { tasks: rows.into_iter().map(|row| row.into_task(&self.lanes)).collect(), next })
    }

    /// A task's attempts, the first one first; `None` when there is no such task.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn attempts(&self, id: Uuid) -> Result<Option<Vec<Attempt>>, StoreError> {
        self.pool.ask(async |connection| self.attempts_on(connection, id).await).await
    }

    pub(crate) async fn attempts_on(
        &self,
        connection: &mut PgConnection,
        id: Uuid,
    ) -> Result<Option<Vec<Attempt>>, StoreError> {
        let Some(last) = self.row(connection, id).await? else { return Ok(None) };
        let earlier: Vec<AttemptRow> = sqlx::query_as(
            "select claim, ended_at, picked_at, started_at, attempt, status, worker_id, result, error
               from attempts where task_id = $1 order by claim, ended_at limit 1000",
        )
        .bind(id)
        .fetch_all(connection)
        .await?;
        let known = |claim| earlier.iter().any(|row: &AttemptRow| row.claim == claim);
        let last = last_attempt(&last).filter(|_| !known(last.claim));
        Ok(Some(earlier.into_iter().map(|row| row.attempt).chain(last).collect()))
    }
}

/// Of the tables that hold tasks in this state.
fn statement(status: Option<TaskStatus>) -> &'static str {
    match status {
        None => ALL,
        Some(TaskStatus::Failed) => FAILED,
        Some(TaskStatus::Cancelled) => CANCELLED,
        Some(TaskStatus::Complete) => HISTORY,
        Some(TaskStatus::Queued | TaskStatus::Picked | TaskStatus::Started) => LIVE,
    }
}

/// The parameters of a list statement.
#[derive(Debug)]
struct ListQuery {
    before: Uuid,
    from: Uuid,
    status: Option<i16>,
    lanes: Option<Vec<i32>>,
    tag: Option<Json<[String; 1]>>,
    worker_id: Option<String>,
    created_after: Option<DateTime<Utc>>,
    created_before: Option<DateTime<Utc>>,
    schedule_id: Option<Uuid>,
    page_size: i64,
    has_system_tasks: bool,
}

/// What there is for a page.
#[derive(Debug)]
struct Scan {
    rows: Vec<TaskRow>,
    /// The lowest id that was looked at, when there is more below.
    edge: Option<Uuid>,
}

impl ListQuery {
    async fn new(
        store: &Store,
        connection: &mut PgConnection,
        filter: &TaskFilter,
        before: Option<Uuid>,
        page_size: i64,
    ) -> Result<Self, StoreError> {
        let lanes = match &filter.queue {
            Some(queue) => {
                store.lanes.load(connection).await?;
                Some(store.lanes.of_queue(queue))
            }
            None => None,
        };
        let above = filter.created_before.map(|at| first_id(at + CLOCK_SLACK)).unwrap_or(Uuid::max());
        Ok(Self {
            before: before.unwrap_or(Uuid::max()).min(above),
            from: filter.created_after.map(|at| first_id(at - CLOCK_SLACK)).unwrap_or(Uuid::nil()),
            status: filter.status.map(status_code),
            lanes,
            tag: filter.tag.clone().map(|tag| Json([tag])),
            worker_id: filter.worker_id.clone(),
            created_after: filter.created_after,
            created_before: filter.created_before,
            schedule_id: filter.schedule_id,
            page_size,
            has_system_tasks: store.lanes.all().iter().any(|lane| is_system(lane.id)),
        })
    }

    fn has_filters(&self) -> bool {
        self.status.is_some()
            || self.lanes.is_some()
            || self.tag.is_some()
            || self.worker_id.is_some()
            || self.created_after.is_some()
            || self.created_before.is_some()
            || self.schedule_id.is_some()
    }

    /// Without filters, all that is passed over is what system queues hold, where there are any.
    fn scanned_max(&self) -> i64 {
        match (self.has_filters(), self.has_system_tasks) {
            (true, _) => SCANNED_MAX,
            (false, true) => (self.page_size + 1) * BESIDES_SYSTEM_TASKS,
            (false, false) => self.page_size + 1,
        }
    }

    async fn scan(&self, connection: &mut PgConnection, sql: &'static str) -> Result<Scan, StoreError> {
        let scanned_max = self.scanned_max();
        let rows = sqlx::query(sql)
            .bind(self.before)
            .bind(self.from)
            .bind(scanned_max)
            .bind(self.status)
            .bind(&self.lanes)
            .bind(&self.tag)
            .bind(&self.worker_id)
            .bind(self.created_after)
            .bind(self.created_before)
            .bind(self.schedule_id)
            .bind(self.page_size)
            .fetch_all(&mut *connection)
            .await?;
        let edge = match rows.first() {
            Some(row) => row.try_get("edge")?,
            None => self.edge_of_nothing(connection, sql, scanned_max).await?,
        };
        let rows = rows.iter().map(TaskRow::from_row).collect::<sqlx::Result<_>>()?;
        Ok(Scan { rows, edge })
    }

    /// The edge when nothing that was looked at matched: found by looking without filters.
    async fn edge_of_nothing(
        &self,
        connection: &mut PgConnection,
        sql: &'static str,
        scanned_max: i64,
    ) -> Result<Option<Uuid>, StoreError> {
        let row = sqlx::query(sql)
            .bind(self.before)
            .bind(self.from)
            .bind(scanned_max)
            .bind(None::<i16>)
            .bind(None::<Vec<i32>>)
            .bind(None::<Json<[String; 1]>>)
            .bind(None::<String>)
            .bind(None::<DateTime<Utc>>)
            .bind(None::<DateTime<Utc>>)
            .bind(None::<Uuid>)
            .bind(0_i64)
            .fetch_optional(connection)
            .await?;
        Ok(row.map(|row| row.try_get("edge")).transpose()?.flatten())
    }
}

/// The lowest UUIDv7 of a moment.
pub(crate) fn first_id(at: DateTime<Utc>) -> Uuid {
    let ms = u64::try_from(at.timestamp_millis()).unwrap_or(0);
    Uuid::from_u128(u128::from(ms) << 80)
}

/// The attempt that a task's row tells of: the one that runs, or the one that ended the task. While the task waits, what ran
/// before is among the earlier ones.
fn last_attempt(row: &TaskRow) -> Option<Attempt> {
    let task = &row.task;
    if matches!(task.status, TaskStatus::Queued | TaskStatus::Picked) {
        return None;
    }
    Some(Attempt {
        attempt: task.attempt.max(1),
        status: task.status,
        worker_id: task.worker_id.clone()?,
        picked_at: task.picked_at?,
        started_at: Some(task.started_at?),
        ended_at: task.completed_at.or(task.failed_at).or(task.cancelled_at),
        result: task.result.clone().filter(|_| task.status.is_terminal()),
        error: task.error.clone().filter(|_| task.status.is_terminal()),
    })
}

/// An attempt of the table, and its claim.
#[derive(Debug)]
struct AttemptRow {
    claim: i64,
    attempt: Attempt,
}

impl<'r> FromRow<'r, PgRow> for AttemptRow {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        let attempt = Attempt {
            attempt: row.try_get::<i16, _>("attempt")?.into(),
            status: status_from(row.try_get("status")?),
            worker_id: row.try_get("worker_id")?,
            picked_at: row.try_get("picked_at")?,
            started_at: row.try_get("started_at")?,
            ended_at: row.try_get("ended_at")?,
            result: row.try_get::<Option<Json<TaskResult>>, _>("result")?.map(|j| j.0),
            error: row.try_get::<Option<Json<TaskError>>, _>("error")?.map(|j| j.0),
        };
        Ok(AttemptRow { claim: row.try_get("claim")?, attempt })
    }
}
