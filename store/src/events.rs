//! The log of events: one row a batch, in one order that never changes.
//!
//! Statements leave their events in an inbox; [`Store::advance_events`] moves them to the log, one mover at a time, and gives them
//! their numbers. A reader that goes by number therefore misses nothing, however late a transaction commits. The same move keeps
//! the counts of [`crate::stats`]. It is the function `taskmaster_advance_events` of the migrations: what it does after it has
//! locked the head must see what the mover before has committed.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use taskmaster_openapi::event::{Event, EventType};
use uuid::Uuid;

use crate::database::Store;
use crate::error::StoreError;
use crate::row::from_row;

/// Rows of the inbox that are moved at once.
const MOVED_MAX: i32 = 500;

/// How often the inbox is looked at when nobody rings.
const PUMP_EVERY: Duration = Duration::from_secs(1);
/// How long the first event of a batch waits for others.
const PUMP_TOGETHER: Duration = Duration::from_millis(10);

/// A statement that has drawn a number for the inbox has almost always committed or failed by then, ...
const USUAL: Duration = Duration::from_secs(1);
/// ... and after so many looks a second apart that the database has answered always (see the statement time-out), ...
const SETTLED_LOOKS: usize = 40;
/// ... unless something went wrong that the time-out does not govern: a look from the bottom.
const DEEP_EVERY: Duration = Duration::from_secs(60);

/// Where the inbox begins, so that rows that were moved long ago are not walked over again: while somebody holds a transaction open
/// nothing may remove them.
///
/// Whether something waits is looked at from where the inbox began a second ago, once a second from where all is settled. What waits
/// is always moved from there: of two rows of a statement that commits late, the second must not be moved without the first.
#[derive(Debug, Default)]
pub(crate) struct Inbox(Mutex<Beginning>);

#[derive(Debug, Default)]
struct Beginning {
    /// What was found first, and when: one a second, the youngest at the back.
    found: VecDeque<(Instant, i64)>,
    next_careful: Option<Instant>,
    next_deep: Option<Instant>,
}

/// Numbers of the inbox below which nothing is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Begins {
    looking: i64,
    moving: i64,
}

impl Inbox {
    fn begins(&self, now: Instant) -> Begins {
        let mut beginning = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if beginning.next_deep.is_none_or(|next| now >= next) {
            beginning.next_deep = now.checked_add(DEEP_EVERY);
            return Begins { looking: 0, moving: 0 };
        }
        let moving = beginning.settled();
        if beginning.next_careful.is_none_or(|next| now >= next) {
            beginning.next_careful = now.checked_add(USUAL);
            return Begins { looking: moving, moving };
        }
        let usual = |(at, _): &&(Instant, i64)| now.saturating_duration_since(*at) >= USUAL;
        let looking = beginning.found.iter().rev().find(usual).map_or(moving, |(_, first)| *first);
        Begins { looking, moving }
    }

    fn found(&self, first: i64, now: Instant) {
        let mut beginning = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if beginning.found.back().is_some_and(|(at, _)| now.saturating_duration_since(*at) < USUAL) {
            return;
        }
        beginning.found.push_back((now, first));
        if beginning.found.len() > SETTLED_LOOKS {
            beginning.found.pop_front();
        }
    }
}

impl Beginning {
    fn settled(&self) -> i64 {
        let is_full = self.found.len() >= SETTLED_LOOKS;
        self.found.front().filter(|_| is_full).map_or(0, |(_, first)| *first)
    }
}

/// Events after a number.
#[derive(Debug, Clone, Default)]
pub struct EventPage {
    pub events: Vec<Event>,
    /// The events here come right after this one: the number asked for, or a higher one when those between are no longer kept.
    pub begins_after: i64,
}

#[derive(Debug)]
struct Row {
    first_id: i64,
    at: DateTime<Utc>,
    code: i16,
    n: i32,
    task_ids: Vec<Uuid>,
    lanes: Vec<i32>,
    attempts: Vec<i16>,
    workers: Vec<Option<String>>,
    schedules: Vec<Uuid>,
}

from_row!(Row { first_id, at, code, n, task_ids, lanes, attempts, workers, schedules });

impl Store {
    /// Moves waiting events to the log and counts them. Gives back whether more may be waiting.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn advance_events(&self) -> Result<bool, StoreError> {
        let begins = self.inbox.begins(Instant::now());
        let first: Option<i64> = sqlx::query_scalar("select min(id) from event_inbox where id >= $1")
            .bind(begins.looking)
            .fetch_one(&self.pool)
            .await?;
        let Some(first) = first else { return Ok(false) };
        self.inbox.found(first, Instant::now());
        let moved: i64 = sqlx::query_scalar("select taskmaster_advance_events($1, $2)")
            .bind(MOVED_MAX)
            .bind(begins.moving)
            .fetch_one(&self.pool)
            .await?;
        if moved > 0 {
            self.news.events();
        }
        Ok(moved >= i64::from(MOVED_MAX))
    }

    /// Moves events as they come, for as long as it is polled: soon after this process has left some, and every second in case
    /// another did and died. Every gateway and every coordinator runs one.
    pub async fn pump_events(&self) {
        loop {
            let _ = tokio::time::timeout(PUMP_EVERY, self.events_waiting.notified()).await;
            // What comes within a few milliseconds travels together.
            tokio::time::sleep(PUMP_TOGETHER).await;
            loop {
                match self.advance_events().await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::debug!(%error, "events wait for the database");
                        break;
                    }
                }
            }
        }
    }

    /// The number of the newest event; 0 when there is none.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn events_head(&self) -> Result<i64, StoreError> {
        self.pool.ask(async |connection| head(connection).await).await
    }

    /// Events with numbers above `after`, in order: some more than `limit` at most, since batches are not cut.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn events_after(&self, after: i64, limit: i64) -> Result<EventPage, StoreError> {
        self.pool.ask(async |connection| self.events_after_on(connection, after, limit).await).await
    }

    pub(crate) async fn events_after_on(
        &self,
        connection: &mut PgConnection,
        after: i64,
        limit: i64,
    ) -> Result<EventPage, StoreError> {
        let mut rows = event_rows(connection, after, limit).await?;
        let mut kept_after = after;
        if rows.is_empty() {
            // Either nothing came after the number, or nothing of it is kept. Which one the head says; the second look leaves out
            // nothing that was moved to the log between the first one and that.
            kept_after = head(connection).await?;
            rows = event_rows(connection, after, limit).await?;
        }
        if let Some(first) = rows.first() {
            kept_after = first.first_id - 1;
        }
        self.lanes.ensure(connection, rows.iter().flat_map(|row| row.lanes.iter().copied())).await?;
        let events = rows.iter().flat_map(|row| self.unpack(row)).filter(|event| event.id > after).collect();
        Ok(EventPage { events, begins_after: kept_after.max(after) })
    }

    fn unpack<'a>(&'a self, row: &'a Row) -> impl Iterator<Item = Event> + 'a {
        let event_type = EventType::ALL.get(row.code as usize).copied();
        (0..row.n as usize).filter_map(move |i| {
            let who = row.workers.get(i).cloned().flatten();
            let of_webhook = event_type == Some(EventType::WebhookDisabled);
            Some(Event {
                id: row.first_id + i as i64,
                event_type: event_type?,
                at: row.at,
                task_id: row.task_ids.get(i).copied(),
                queue: row.lanes.get(i).map(|lane| self.lanes.queue(*lane)),
                attempt: row.attempts.get(i).copied().map(i64::from),
                schedule_id: row.schedules.get(i).copied(),
                worker_id: who.clone().filter(|_| !of_webhook),
                webhook_id: who.filter(|_| of_webhook).and_then(|id| id.parse().ok()),
            })
        })
    }

    /// Forgets events that are older than so long. What webhooks and callbacks are still to be made of is kept for up to a week.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn trim_events(&self, kept_seconds: f64) -> Result<u64, StoreError> {
        sqlx::query("select taskmaster_count_events()").execute(&self.pool).await?;
        let done = sqlx::query(
            "delete from events where first_id in
                (select first_id from events where at < now() - $1 * interval '1 second' order by at limit 10000)
                and first_id < (select next_id from event_head)
                and (first_id <= (select case when callbacks_after_event is null
                                               and not exists (select from webhooks where disabled_reason is null)
                                              then 9223372036854775807 else cursor end from webhook_driver)
                     or at < now() - interval '7 days')",
        )
        .bind(kept_seconds)
        .execute(&self.pool)
        .await?;
        sqlx::query("delete from task_rates where at < now() - interval '1 hour'").execute(&self.pool).await?;
        Ok(done.rows_affected())
    }
}

async fn head(connection: &mut PgConnection) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("select taskmaster_newest_event()").fetch_one(connection).await?)
}

async fn event_rows(connection: &mut PgConnection, after: i64, limit: i64) -> Result<Vec<Row>, StoreError> {
    // The batch that holds `after` may go on behind it; the next one begins above it. Only what lies above counts for the limit,
    // so that a batch larger than a page is not all that there ever is on it.
    let rows = sqlx::query_as(
        "with page as (
            select e.*, sum(least(n, first_id + n - 1 - $1))
                          over (order by first_id rows between unbounded preceding and 1 preceding) as before
              from (select * from events
                     where first_id >= coalesce((select max(first_id) from events where first_id <= $1), 0)
                     order by first_id limit $2 + 1) e
         ) select first_id, at, type as code, n, task_ids, lanes, attempts, workers, schedules
             from page where coalesce(before, 0) <= $2 order by first_id",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inbox_is_looked_at_from_a_second_ago_and_moved_from_where_all_is_settled() {
        let (inbox, start) = (Inbox::default(), Instant::now());
        let look = |ms: u64, first: i64| {
            let now = start + Duration::from_millis(ms);
            let Begins { looking, moving } = inbox.begins(now);
            inbox.found(first, now);
            (looking, moving)
        };
        assert_eq!(look(0, 100), (0, 0), "nothing is known");
        assert_eq!(look(500, 150), (0, 0), "the first careful look");
        assert_eq!(look(1_000, 200), (100, 0), "what was drawn before 100 has usually been committed by now");
        assert_eq!(look(1_500, 250), (0, 0), "once a second that is not relied on");
        for second in 2..40 {
            assert_eq!(look(second * 1_000, second as i64 * 1_000).1, 0, "not settled");
        }
        assert_eq!(look(40_000, 40_000), (100, 100), "once a second from there");
        assert_eq!(look(40_500, 40_500), (39_000, 200));
        assert_eq!(look(60_000, 60_000), (0, 0), "once a minute from the bottom all the same");
    }

    #[test]
    fn time_in_which_the_database_does_not_answer_settles_nothing() {
        let (inbox, start) = (Inbox::default(), Instant::now());
        inbox.begins(start);
        inbox.found(100, start);
        let Begins { moving, .. } = inbox.begins(start + Duration::from_secs(59));
        assert_eq!(moving, 0);
    }
}
