//! Lanes: tasks that the same workers can run. Known by heart, since there are few and none ever changes.
//!
//! Lanes of the system's own queues (`$webhooks`, `$callbacks`) have ids below 0, and a flow key each: what shares one shares limits.
//! Their tasks leave no events, and are neither listed nor counted among users'.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use sqlx::PgExecutor;
use sqlx::types::Json;
use taskmaster_openapi::coordinator::Abilities;
use taskmaster_openapi::limits;
use taskmaster_openapi::task::Work;

use crate::create::TaskToCreate;
use crate::error::StoreError;
use crate::pool::Pool;

/// Labels of a worker, or those that a task requires.
pub type Labels = BTreeMap<String, String>;

/// A kind of work, as far as it decides who can do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

    pub(crate) fn from_code(code: i16) -> Self {
        [Kind::Http, Kind::HttpRules].into_iter().find(|kind| *kind as i16 == code).unwrap_or(Kind::Command)
    }
}

/// Whether the lane is one of the system's own queues.
pub const fn is_system(lane: i32) -> bool {
    lane < 0
}

/// What the tasks of a lane have in common: all that decides who can run them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneKey {
    pub queue: Arc<str>,
    pub kind: Kind,
    /// Labels that a worker must have, with these values; any worker will do when there are none.
    pub requires: Labels,
}

impl LaneKey {
    pub(crate) fn of(task: &TaskToCreate) -> Self {
        Self { queue: task.queue.as_str().into(), kind: Kind::of(&task.work), requires: task.requires.clone() }
    }

    /// Whether a worker with these abilities and labels can run the lane's tasks.
    pub fn is_served_by(&self, abilities: &Abilities, labels: &Labels) -> bool {
        let able = match self.kind {
            Kind::Http => abilities.http,
            Kind::HttpRules => abilities.http && abilities.http_rules,
            Kind::Command => abilities.commands,
        };
        able && (abilities.queues.is_empty() || abilities.queues.iter().any(|queue| **queue == *self.queue))
            // Most require nothing, and this is asked of every lane and worker.
            && (self.requires.is_empty() || self.requires.iter().all(|(name, value)| labels.get(name) == Some(value)))
    }
}

/// Tasks that the same workers can run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lane {
    pub id: i32,
    pub key: LaneKey,
}

#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<i32, Lane>,
    /// Of those of users that have no flow key: whose lanes those are changes.
    by_key: HashMap<LaneKey, i32>,
}

/// The lanes this process has seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lanes(Arc<RwLock<Known>>);

impl Lanes {
    /// The lane of a key, made when it is the first of its kind.
    pub(crate) async fn id_of(&self, pool: &Pool, key: &LaneKey) -> Result<i32, StoreError> {
        if let Some(id) = self.known(key) {
            return Ok(id);
        }
        // Another process may have made it.
        self.load(pool).await?;
        if let Some(id) = self.known(key) {
            return Ok(id);
        }
        within_bounds(pool, key).await?;
        // The notification makes coordinators learn the lane before its first task.
        sqlx::query(
            "with made as (insert into lanes (queue, kind, requires) values ($1, $2, $3) on conflict do nothing returning id)
             select pg_notify('taskmaster_due', '*') from made",
        )
        .bind(&*key.queue)
        .bind(key.kind as i16)
        .bind(Json(&key.requires))
        .execute(pool)
        .await?;
        self.load(pool).await?;
        // The lane is there now: nothing removes lanes.
        self.known(key).ok_or(StoreError::Unavailable(sqlx::Error::RowNotFound))
    }

    fn known(&self, key: &LaneKey) -> Option<i32> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.by_key.get(key).copied()
    }

    /// Learns every lane there is.
    pub(crate) async fn load(&self, database: impl PgExecutor<'_>) -> Result<(), StoreError> {
        let rows: Vec<(i32, String, i16, Json<Labels>, bool)> =
            sqlx::query_as("select id, queue, kind, requires, flow <> '' from lanes").fetch_all(database).await?;
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (id, queue, kind, Json(requires), has_key) in rows {
            let key = LaneKey { queue: queue.into(), kind: Kind::from_code(kind), requires };
            if !has_key {
                known.by_key.insert(key.clone(), id);
            }
            known.by_id.insert(id, Lane { id, key });
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
        self.get(id).map(|lane| lane.key.queue.to_string()).unwrap_or_default()
    }

    /// The queue of a lane, and what it requires; empty when the lane is not known.
    pub(crate) fn shown(&self, id: i32) -> (String, Labels) {
        self.get(id).map(|lane| (lane.key.queue.to_string(), lane.key.requires)).unwrap_or_default()
    }

    /// Every lane of a queue.
    pub(crate) fn of_queue(&self, queue: &str) -> Vec<i32> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.by_id.values().filter(|lane| &*lane.key.queue == queue).map(|lane| lane.id).collect()
    }

    pub(crate) fn all(&self) -> Vec<Lane> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut lanes: Vec<Lane> = known.by_id.values().cloned().collect();
        lanes.sort_by_key(|lane| lane.id);
        lanes
    }
}

/// Whether there may be one lane more, of this key. Coordinators look at every lane, and no lane ever goes.
async fn within_bounds(pool: &Pool, key: &LaneKey) -> Result<(), StoreError> {
    let (queues, requirements): (i64, i64) = sqlx::query_as(
        "select (select count(*) from (select queue from lanes where id > 0 union select queue from queues) every where queue <> $1),
                (select count(*) from lanes where id > 0 and flow = '' and requires <> '{}')",
    )
    .bind(&*key.queue)
    .fetch_one(pool)
    .await?;
    if queues >= limits::QUEUES_MAX as i64 {
        return Err(StoreError::TooManyQueues);
    }
    if !key.requires.is_empty() && requirements >= limits::REQUIREMENTS_MAX as i64 {
        return Err(StoreError::TooManyRequirements);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels() -> impl Strategy<Value = Labels> {
        prop::collection::btree_map("[ab]", "[xy]", 0..3)
    }

    fn abilities(queues: &[&str]) -> Abilities {
        let queues = queues.iter().map(|queue| (*queue).to_owned()).collect();
        Abilities { commands: false, http: true, http_rules: false, queues }
    }

    proptest! {
        /// By the definition: every label that is required is among the worker's.
        #[test]
        fn a_lane_is_served_by_those_who_have_all_labels_that_it_requires(requires in labels(), has in labels()) {
            let key = LaneKey { queue: "a".into(), kind: Kind::Http, requires: requires.clone() };
            let together: Labels = has.clone().into_iter().chain(requires).collect();
            prop_assert_eq!(key.is_served_by(&abilities(&[]), &has), together == has);
            prop_assert!(key.is_served_by(&abilities(&["a"]), &key.requires));
            prop_assert!(!key.is_served_by(&abilities(&["b"]), &key.requires));
            let commands = LaneKey { kind: Kind::Command, ..key.clone() };
            prop_assert!(!commands.is_served_by(&abilities(&[]), &key.requires));
        }
    }
}
