//! Lanes: tasks that the same workers can run. Known by heart, since there are few and none ever changes.
//!
//! Lanes of the system's own queues (`$webhooks`, `$callbacks`) have ids below 0, and a flow key each: what shares one shares limits.
//! Their tasks leave no events, and are neither listed nor counted among users'.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use sqlx::{PgExecutor, PgPool};
use taskmaster_openapi::limits;
use taskmaster_openapi::task::Work;

use crate::error::StoreError;

/// A kind of work, as far as it decides who can do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Http = 0,
    Command = 1,
    /// HTTP requests that want more of a worker than plain ones: rules for answers, or an end by a callback.
    HttpRules = 2,
}

impl Kind {
    pub(crate) fn of(work: &Work) -> Self {
        match work {
            Work::Http(http) if http.wants_rules() => Kind::HttpRules,
            Work::Http(_) => Kind::Http,
            Work::Command(_) | Work::Argv(_) => Kind::Command,
        }
    }

    fn from_code(code: i16) -> Self {
        [Kind::Http, Kind::HttpRules].into_iter().find(|kind| *kind as i16 == code).unwrap_or(Kind::Command)
    }
}

/// Whether the lane is one of the system's own queues.
pub const fn is_system(lane: i32) -> bool {
    lane < 0
}

/// What the tasks of a lane have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lane {
    pub id: i32,
    pub queue: Arc<str>,
    pub kind: Kind,
}

#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<i32, Lane>,
    by_key: HashMap<(Arc<str>, Kind), i32>,
}

/// The lanes this process has seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lanes(Arc<RwLock<Known>>);

impl Lanes {
    /// The lane of a queue and a kind of work, made when it is the first of its kind.
    pub(crate) async fn id_of(&self, pool: &PgPool, queue: &str, kind: Kind) -> Result<i32, StoreError> {
        if let Some(id) = self.known(queue, kind) {
            return Ok(id);
        }
        let queues: i64 = sqlx::query_scalar("select count(distinct queue) from lanes where queue <> $1 and id > 0")
            .bind(queue)
            .fetch_one(pool)
            .await?;
        if queues >= limits::QUEUES_MAX as i64 {
            return Err(StoreError::TooManyQueues);
        }
        // The notification makes coordinators learn the lane before its first task.
        sqlx::query(
            "with made as (insert into lanes (queue, kind) values ($1, $2) on conflict do nothing returning id)
             select pg_notify('taskmaster_due', '*') from made",
        )
        .bind(queue)
        .bind(kind as i16)
        .execute(pool)
        .await?;
        self.load(pool).await?;
        // The lane is there now: nothing removes lanes.
        self.known(queue, kind).ok_or(StoreError::Unavailable(sqlx::Error::RowNotFound))
    }

    fn known(&self, queue: &str, kind: Kind) -> Option<i32> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.by_key.get(&(Arc::from(queue), kind)).copied()
    }

    /// Learns every lane there is.
    pub(crate) async fn load(&self, database: impl PgExecutor<'_>) -> Result<(), StoreError> {
        let rows: Vec<(i32, String, i16)> =
            sqlx::query_as("select id, queue, kind from lanes").fetch_all(database).await?;
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (id, queue, kind) in rows {
            let lane = Lane { id, queue: queue.into(), kind: Kind::from_code(kind) };
            if !is_system(id) {
                known.by_key.insert((lane.queue.clone(), lane.kind), id);
            }
            known.by_id.insert(id, lane);
        }
        Ok(())
    }

    /// Loads the lanes when one of these is not known yet.
    pub(crate) async fn ensure(
        &self,
        database: impl PgExecutor<'_>,
        ids: impl Iterator<Item = i32>,
    ) -> Result<(), StoreError> {
        let missing = {
            let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
            ids.into_iter().any(|id| !known.by_id.contains_key(&id))
        };
        if missing { self.load(database).await } else { Ok(()) }
    }

    pub(crate) fn get(&self, id: i32) -> Option<Lane> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).by_id.get(&id).cloned()
    }

    /// The queue of a lane; empty when the lane is not known.
    pub(crate) fn queue(&self, id: i32) -> String {
        self.get(id).map(|lane| lane.queue.to_string()).unwrap_or_default()
    }

    /// Every lane of a queue.
    pub(crate) fn of_queue(&self, queue: &str) -> Vec<i32> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.by_id.values().filter(|lane| &*lane.queue == queue).map(|lane| lane.id).collect()
    }

    pub(crate) fn all(&self) -> Vec<Lane> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut lanes: Vec<Lane> = known.by_id.values().cloned().collect();
        lanes.sort_by_key(|lane| lane.id);
        lanes
    }
}
