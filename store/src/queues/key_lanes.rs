//! A lane for each flow key, in queues with limits by key.
//!
//! The lane of a key that has no tasks any more is given to another key of the same queue, kind of work and labels: there are no more of them than
//! keys that have tasks at once, or than are kept anyway. Whoever puts a task into such a lane holds its row, so that it stays the key's
//! until the task is there; whoever gives lanes away has locked the queue's row, so that nobody claims meanwhile.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sqlx::PgConnection;
use sqlx::types::Json;
use taskmaster_openapi::limits;

use crate::create::{TaskToCreate, to_json};
use crate::database::Store;
use crate::error::StoreError;
use crate::lanes::LaneKey;
use crate::pool::Transaction;

/// Work that the same workers can run, under a flow key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct KeyedWork {
    pub lane: LaneKey,
    pub key: String,
}

impl KeyedWork {
    /// `None` where the task has no key.
    pub(crate) fn of(task: &TaskToCreate) -> Option<Self> {
        let key = task.flow_key.clone()?;
        Some(Self { lane: LaneKey::of(task), key })
    }
}

/// A transaction, and the lanes that are held for it.
pub(crate) struct Placed {
    pub transaction: Transaction,
    pub lanes: HashMap<KeyedWork, i32>,
}

/// Others may give away what was just made, when all keys are used at once. Tried so many times.
const TRIES: usize = 5;
/// So many lanes of keys are kept for each queue and kind of work before any is given to another key.
const KEPT: usize = 64;

const HOLD: &str = "
select l.id, w.place - 1
  from unnest($1::text[], $2::smallint[], $3::text[], $4::text[]) with ordinality as w(queue, kind, key, requires, place)
       join lanes l on l.queue = w.queue and l.kind = w.kind and l.flow = w.key and l.requires = w.requires::jsonb
 order by l.id for key share of l";

/// Lanes of no other keys than these, whose tasks have all ended.
const IDLE: &str = "
select l.id from unnest($1::integer[]) as l(id)
 where not exists (select from tasks t where t.lane = any(array[l.id]) and t.priority >= 0)
   and not exists (select from schedules s where s.lane = l.id and s.flow_key is not null)
 limit $2";

impl Store {
    /// Begins a transaction with the lanes of these held, as far as their queues have limits by key.
    ///
    /// # Errors
    /// When the database is not available, or too many keys have tasks at once.
    pub(crate) async fn begin_placed(&self, wanted: BTreeSet<KeyedWork>) -> Result<Placed, StoreError> {
        for _ in 0..TRIES {
            let mut transaction = self.begin().await?;
            let wanted = with_limits_by_key(&mut transaction, &wanted).await?;
            let lanes = hold(&mut transaction, &wanted).await?;
            if lanes.len() == wanted.len() {
                return Ok(Placed { transaction, lanes });
            }
            transaction.rollback().await?;
            self.make_key_lanes(&wanted).await?;
        }
        Err(StoreError::TooManyFlowKeys)
    }

    /// Makes the lanes that are missing, by queue and kind of work.
    async fn make_key_lanes(&self, wanted: &BTreeSet<KeyedWork>) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        let queues: BTreeSet<&str> = wanted.iter().map(|work| &*work.lane.queue).collect();
        sqlx::query("select from queues where queue = any($1) order by queue for update")
            .bind(Vec::from_iter(queues))
            .execute(&mut *transaction)
            .await?;
        let mut groups: BTreeMap<&LaneKey, Vec<&str>> = BTreeMap::new();
        for work in wanted {
            groups.entry(&work.lane).or_default().push(&work.key);
        }
        for (lane, keys) in groups {
            make(&mut transaction, lane, &keys).await?;
        }
        transaction.commit().await?;
        self.lanes.load(&self.pool).await
    }
}

async fn with_limits_by_key(
    connection: &mut PgConnection,
    wanted: &BTreeSet<KeyedWork>,
) -> Result<BTreeSet<KeyedWork>, StoreError> {
    let queues: BTreeSet<&str> = wanted.iter().map(|work| &*work.lane.queue).collect();
    let limited: HashSet<String> = sqlx::query_scalar(
        "select queue from queues where queue = any($1) and (key_concurrency is not null or key_rate_count is not null)",
    )
    .bind(Vec::from_iter(queues))
    .fetch_all(connection)
    .await?
    .into_iter()
    .collect();
    Ok(wanted.iter().filter(|work| limited.contains(&*work.lane.queue)).cloned().collect())
}

async fn hold(
    connection: &mut PgConnection,
    wanted: &BTreeSet<KeyedWork>,
) -> Result<HashMap<KeyedWork, i32>, StoreError> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let requires: Result<Vec<String>, StoreError> = wanted.iter().map(|work| to_json(&work.lane.requires)).collect();
    let rows: Vec<(i32, i64)> = sqlx::query_as(HOLD)
        .bind(wanted.iter().map(|work| &*work.lane.queue).collect::<Vec<_>>())
        .bind(wanted.iter().map(|work| work.lane.kind as i16).collect::<Vec<_>>())
        .bind(wanted.iter().map(|work| &work.key).collect::<Vec<_>>())
        .bind(requires?)
        .fetch_all(connection)
        .await?;
    let wanted: Vec<&KeyedWork> = wanted.iter().collect();
    Ok(rows.into_iter().filter_map(|(id, place)| Some(((*wanted.get(place as usize)?).clone(), id))).collect())
}

/// Makes the lanes of these keys that are missing. The queue's row is locked.
async fn make(connection: &mut PgConnection, lane: &LaneKey, keys: &[&str]) -> Result<(), StoreError> {
    let rows: Vec<(i32, String, bool)> = sqlx::query_as(
        "select id, flow, kind = $2 and requires = $3 from lanes where queue = $1 and flow <> '' order by id",
    )
    .bind(&*lane.queue)
    .bind(lane.kind as i16)
    .bind(Json(&lane.requires))
    .fetch_all(&mut *connection)
    .await?;
    let there: HashSet<&str> = rows.iter().filter(|(.., alike)| *alike).map(|(_, key, _)| key.as_str()).collect();
    let missing: Vec<&str> = keys.iter().copied().filter(|key| !there.contains(key)).collect();
    let others = rows.iter().filter(|(_, key, alike)| *alike && !keys.contains(&key.as_str()));
    let others: Vec<i32> = others.map(|(id, ..)| *id).collect();
    let free =
        if there.len() + missing.len() <= KEPT { Vec::new() } else { idle(connection, &others, missing.len()).await? };
    let (again, new) = missing.split_at(free.len());
    if rows.len() + new.len() > limits::FLOW_KEYS_MAX {
        return Err(StoreError::TooManyFlowKeys);
    }
    sqlx::query(
        "update lanes l set flow = f.key from unnest($1::integer[], $2::text[]) as f(id, key) where l.id = f.id",
    )
    .bind(free)
    .bind(again)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "insert into lanes (queue, kind, requires, flow) select $1, $2, $3, key from unnest($4::text[]) as f(key)",
    )
    .bind(&*lane.queue)
    .bind(lane.kind as i16)
    .bind(Json(&lane.requires))
    .bind(new)
    .execute(connection)
    .await?;
    Ok(())
}

/// Some of these lanes that nobody needs: locked first, and looked at afterwards, so that what others have just put there is seen.
async fn idle(connection: &mut PgConnection, lanes: &[i32], count: usize) -> Result<Vec<i32>, StoreError> {
    let free: Vec<i32> =
        sqlx::query_scalar("select id from lanes where id = any($1) order by id for update skip locked")
            .bind(lanes)
            .fetch_all(&mut *connection)
            .await?;
    Ok(sqlx::query_scalar(IDLE).bind(free).bind(count as i64).fetch_all(connection).await?)
}
