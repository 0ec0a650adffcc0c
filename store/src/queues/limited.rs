//! Claims from queues with limits.
//!
//! One transaction: lock the rows of the queues; look, in statements of their own (which see what others committed before they let go of the
//! lock), at what is in flight, at the tokens, and at what is due; deal the room; claim; spend. A queue that somebody else has locked
//! is left for a moment. A task is in flight from its claim until the database has recorded what came of it, or that it went back.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};
use taskmaster_openapi::queue::{QueueSettings, Rate};

use super::deal::{Share, Waiting, deal};
use super::{SetRow, queue_columns};
use crate::claim::{Asked, BandFrom, Claimed, HeldBack, claim_on, columns};
use crate::database::Store;
use crate::error::StoreError;
use crate::row::from_row;

/// A queue that another coordinator claims from at this moment is looked at again after so long.
const BUSY_MS: f64 = 20.0;
/// A queue that is full is looked at again after so long, unless something is heard of it.
const FULL_MS: f64 = 1_000.0;
/// Tokens are waited for at least so long, so that those of a fast rate are taken several at once; and at most so long.
const TOKEN_MS: std::ops::RangeInclusive<f64> = 20.0..=10_000.0;
/// More than any task of a claim.
const NO_LIMIT: f64 = 1e9;

const LOCK: &str = concat!(
    "select clock_timestamp() as at, ",
    queue_columns!(),
    " from queues q where q.queue = any($1) order by q.queue for update skip locked"
);

/// What is in flight, by queue and key. Claims that counted name their lanes. Those of before a limit was set do not: they are looked
/// through when they are old enough, and somewhat newer, since they may have begun before the change was committed. What only its target
/// holds any more is in flight as well.
const IN_FLIGHT: &str = "
select l.queue, l.flow as key, count(*) as n
  from (select t.id, t.lane
          from (select max(q.changed_at) as changed_at, array_agg(l.id) as lanes
                  from lanes l join queues q on q.queue = l.queue where q.queue = any($1)) counted
               cross join lateral (select c.id, c.task_ids from claims c
                                    where c.lanes && counted.lanes
                                       or (c.lanes is null and c.claimed_at < counted.changed_at + interval '5 seconds')) c
               cross join lateral unnest(c.task_ids) as x(id)
               cross join lateral (select t.id, t.lane from tasks t
                                    where t.id = x.id and t.claim = c.id and t.status in (1, 2) limit 1) t
         union
        select t.id, t.lane
          from detached d
               cross join lateral (select t.id, t.lane from tasks t
                                    where t.id = d.task_id and t.claim = d.claim and t.status = 2 limit 1) t) t
       cross join lateral (select l.queue, l.flow from lanes l where l.id = t.lane limit 1) l
 where l.queue = any($1)
 group by l.queue, l.flow";

/// The tokens and turns of these queues and keys, and of the queues themselves.
const FLOWS: &str = "
select f.queue, f.flow_key, f.tokens, greatest(0, extract(epoch from $3 - f.at))::float8 as age_seconds, f.last_key
  from (select queue, key from unnest($1::text[], $2::text[]) as w(queue, key)
        union select queue, '' from unnest($1::text[]) as w(queue)) w
       cross join lateral (select * from queue_flows f where f.queue = w.queue and f.flow_key = w.key limit 1) f";

/// What is due in each band, counted up to a limit.
const DUE: &str = "
select b.n as place, d.due, d.waited_seconds, l.flow as key
  from unnest($1::integer[], $2::smallint[], $3::timestamptz[], $6::uuid[]) with ordinality as b(lane, priority, low, low_id, n)
       cross join lateral (select flow from lanes where id = b.lane limit 1) l
       cross join lateral (
            select count(*) as due, coalesce(extract(epoch from now() - min(run_at)), 0)::float8 as waited_seconds
              from (select t.run_at from tasks t
                     where t.lane = b.lane and t.priority = b.priority and t.priority >= 0 and (t.run_at, t.id) >= (b.low, b.low_id)
                       and t.run_at <= now() + $4 * interval '1 millisecond' and t.status = 0
                     order by t.run_at, t.id limit $5) t) d";

const SPEND: &str = "
insert into queue_flows (queue, flow_key, tokens, at, last_key)
select * from unnest($1::text[], $2::text[], $3::float8[], $4::timestamptz[], $5::text[])
on conflict (queue, flow_key) do update
   set tokens = excluded.tokens, at = greatest(queue_flows.at, excluded.at), last_key = coalesce(excluded.last_key, queue_flows.last_key)";

struct InFlight {
    queue: String,
    key: String,
    n: i64,
}

from_row!(InFlight { queue, key, n });

struct Flow {
    queue: String,
    flow_key: String,
    tokens: f64,
    age_seconds: f64,
    last_key: Option<String>,
}

from_row!(Flow { queue, flow_key, tokens, age_seconds, last_key });

impl Flow {
    /// What the bucket holds now.
    fn tokens(&self, rate: Rate) -> f64 {
        let per_second = rate.count as f64 / rate.period_seconds as f64;
        (self.tokens + self.age_seconds * per_second).min(rate.count as f64)
    }
}

/// A locked queue, and what was found out of it.
struct Limited {
    settings: QueueSettings,
    is_paused: bool,
    at: DateTime<Utc>,
    /// By key.
    in_flight: HashMap<String, i64>,
    /// By key; that of the queue is ''.
    flows: HashMap<String, Flow>,
    /// Which of the bands that were asked for are its, and their keys once they are known.
    bands: Vec<usize>,
}

/// What is left of two limits, one by concurrency and one by rate.
#[derive(Clone, Copy)]
struct Left {
    places: f64,
    tokens: f64,
    rate: Option<Rate>,
}

impl Left {
    fn of(concurrency: Option<i64>, in_flight: i64, rate: Option<Rate>, flow: Option<&Flow>) -> Self {
        let places = concurrency.map_or(NO_LIMIT, |max| (max - in_flight).max(0) as f64);
        let full = rate.map_or(NO_LIMIT, |rate| rate.count as f64);
        let tokens = rate.and_then(|rate| Some(flow?.tokens(rate))).unwrap_or(full);
        Self { places, tokens, rate }
    }

    /// Whole tasks; a token is whole when nothing but rounding is missing.
    fn room(&self) -> usize {
        self.places.min((self.tokens + 1e-6).floor()).max(0.0) as usize
    }

    fn without(self, taken: usize) -> Self {
        Self { places: self.places - taken as f64, tokens: self.tokens - taken as f64, ..self }
    }

    /// When there may be room again; 0 when there is.
    fn wait_ms(&self) -> f64 {
        if self.places < 1.0 {
            return FULL_MS;
        }
        match self.rate {
            Some(rate) if self.room() == 0 => {
                let missing = 1.0 - self.tokens;
                (missing * rate.period_seconds as f64 / rate.count as f64 * 1000.0 + 1.0)
                    .clamp(*TOKEN_MS.start(), *TOKEN_MS.end())
            }
            _ => 0.0,
        }
    }
}

impl Limited {
    fn of_queue(&self) -> Left {
        let in_flight = self.in_flight.values().sum();
        Left::of(self.settings.concurrency, in_flight, self.settings.rate, self.flows.get(""))
    }

    /// Tasks without a key, and of before there were limits by key, have none.
    fn of_key(&self, key: &str) -> Left {
        if key.is_empty() {
            return Left::of(None, 0, None, None);
        }
        let in_flight = self.in_flight.get(key).copied().unwrap_or(0);
        Left::of(self.settings.concurrency_by_key, in_flight, self.settings.rate_by_key, self.flows.get(key))
    }
}

impl Store {
    /// The queues with limits, as far as is known, that have some of these bands.
    pub(crate) fn limited_among(&self, bands: &[BandFrom]) -> BTreeMap<String, Vec<usize>> {
        let book = self.queue_book();
        let mut limited: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        if book.is_empty() {
            return limited;
        }
        for (i, band) in bands.iter().enumerate() {
            let Some(lane) = self.lanes.get(band.band.lane) else { continue };
            if book.gate(&lane.key.queue) != super::book::Gate::Open {
                limited.entry(lane.key.queue.to_string()).or_default().push(i);
            }
        }
        limited
    }

    /// As [`Store::claim`], where some of the bands are of these queues with limits.
    pub(crate) async fn claim_within_limits(
        &self,
        asked: &Asked<'_>,
        queues: BTreeMap<String, Vec<usize>>,
    ) -> Result<Claimed, StoreError> {
        let mut transaction = self.begin().await?;
        let counted: HashSet<usize> = queues.values().flatten().copied().collect();
        let mut bands: Vec<BandFrom> =
            asked.bands.iter().enumerate().filter(|(i, _)| !counted.contains(i)).map(|(_, band)| *band).collect();
        let mut held_back = Vec::new();
        let mut locked = lock(&mut transaction, &queues).await?;
        for places in queues.iter().filter(|(queue, _)| !locked.contains_key(*queue)).map(|(_, places)| places) {
            held_back.extend(places.iter().map(|i| HeldBack { lane: asked.bands[*i].band.lane, ms: BUSY_MS }));
        }
        let keys = look(&mut transaction, asked, &mut locked).await?;
        let mut turns = HashMap::new();
        for (queue, limited) in &locked {
            let dealt = share_out(asked, limited, &keys);
            bands.extend(dealt.bands);
            held_back.extend(dealt.held_back);
            turns.insert(queue.clone(), dealt.last);
        }
        let lanes: Vec<i32> = counted.iter().map(|i| asked.bands[*i].band.lane).collect();
        let mut claimed = claim_on(&mut transaction, &Asked { bands: &bands, counted: &lanes, ..*asked }).await?;
        spend(&mut transaction, &claimed, &locked, &turns, asked, &keys).await?;
        transaction.commit().await?;
        claimed.held_back = held_back;
        Ok(claimed)
    }
}

async fn lock(
    connection: &mut PgConnection,
    queues: &BTreeMap<String, Vec<usize>>,
) -> Result<BTreeMap<String, Limited>, StoreError> {
    let names: Vec<&String> = queues.keys().collect();
    let rows = sqlx::query(LOCK).bind(names).fetch_all(connection).await?;
    let mut locked = BTreeMap::new();
    for row in &rows {
        let set = <SetRow as sqlx::FromRow<_>>::from_row(row)?;
        let limited = Limited {
            settings: set.settings,
            is_paused: set.paused_at.is_some(),
            at: row.try_get("at")?,
            in_flight: HashMap::new(),
            flows: HashMap::new(),
            bands: queues.get(&set.queue).cloned().unwrap_or_default(),
        };
        locked.insert(set.queue, limited);
    }
    Ok(locked)
}

/// What is due in a band, and whose it is.
type Keys = HashMap<usize, (String, Waiting)>;

/// Finds out all that decides how much may be claimed. Gives back what is due, by the band's place.
async fn look(
    connection: &mut PgConnection,
    asked: &Asked<'_>,
    locked: &mut BTreeMap<String, Limited>,
) -> Result<Keys, StoreError> {
    let names: Vec<String> = locked.keys().cloned().collect();
    let Some(at) = locked.values().map(|limited| limited.at).max() else { return Ok(Keys::new()) };
    if locked.values().any(|l| l.settings.concurrency.is_some() || l.settings.concurrency_by_key.is_some()) {
        let rows: Vec<InFlight> = sqlx::query_as(IN_FLIGHT).bind(&names).fetch_all(&mut *connection).await?;
        for InFlight { queue, key, n } in rows {
            if let Some(limited) = locked.get_mut(&queue) {
                limited.in_flight.insert(key, n);
            }
        }
    }
    let places: Vec<usize> = locked.values().flat_map(|limited| limited.bands.iter().copied()).collect();
    let bands: Vec<BandFrom> = places.iter().map(|i| asked.bands[*i]).collect();
    let (lanes, priorities, low, low_ids) = columns(&bands);
    let rows: Vec<(i64, i64, f64, String)> = sqlx::query_as(DUE)
        .bind(lanes)
        .bind(priorities)
        .bind(low)
        .bind(asked.horizon_ms)
        // One more than there can be room for, so that it shows when something is left.
        .bind(asked.seats.len() as i64 + 1)
        .bind(low_ids)
        .fetch_all(&mut *connection)
        .await?;
    let mut keys = Keys::new();
    for (n, due, waited_seconds, key) in rows {
        let Some(place) = usize::try_from(n - 1).ok().and_then(|n| places.get(n)) else { continue };
        let priority = asked.bands[*place].band.priority;
        keys.insert(*place, (key, Waiting { priority, due: usize::try_from(due).unwrap_or(0), waited_seconds }));
    }
    let of_bands = &keys;
    let wanted: Vec<(&String, &String)> = locked
        .iter()
        .flat_map(|(queue, limited)| limited.bands.iter().filter_map(move |i| Some((queue, &of_bands.get(i)?.0))))
        .collect();
    let (queues, of_keys): (Vec<&String>, Vec<&String>) = wanted.into_iter().unzip();
    let rows: Vec<Flow> = sqlx::query_as(FLOWS).bind(queues).bind(of_keys).bind(at).fetch_all(&mut *connection).await?;
    for flow in rows {
        if let Some(limited) = locked.get_mut(&flow.queue) {
            limited.flows.insert(flow.flow_key.clone(), flow);
        }
    }
    Ok(keys)
}

/// What a queue's bands may have.
struct SharedOut {
    bands: Vec<BandFrom>,
    held_back: Vec<HeldBack>,
    last: Option<String>,
}

fn share_out(asked: &Asked<'_>, limited: &Limited, keys: &Keys) -> SharedOut {
    let mut places: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for i in limited.bands.iter().filter(|_| !limited.is_paused) {
        if let Some((key, waiting)) = keys.get(i)
            && waiting.due > 0
        {
            places.entry(key).or_default().push(*i);
        }
    }
    let share = |(key, places): (&&str, &Vec<usize>)| Share {
        key: (*key).to_owned(),
        room: limited.of_key(key).room(),
        bands: places.iter().filter_map(|i| keys.get(i)).map(|(_, waiting)| *waiting).collect(),
    };
    let shares: Vec<Share> = places.iter().map(share).collect();
    let of_queue = limited.of_queue();
    let last = limited.flows.get("").and_then(|flow| flow.last_key.as_deref());
    let dealt = deal(&shares, of_queue.room().min(asked.seats.len()), last);
    let left = of_queue.without(dealt.given.iter().flatten().sum());
    let mut shared = SharedOut { bands: Vec::new(), held_back: Vec::new(), last: dealt.last };
    for ((key, places), (share, given)) in places.iter().zip(shares.iter().zip(&dealt.given)) {
        let taken: usize = given.iter().sum();
        let wait_ms = left.wait_ms().max(limited.of_key(key).without(taken).wait_ms());
        for (i, (waiting, given)) in places.iter().zip(share.bands.iter().zip(given)) {
            if *given > 0 {
                shared.bands.push(BandFrom { max: *given, ..asked.bands[*i] });
            }
            if waiting.due > *given && wait_ms > 0.0 {
                shared.held_back.push(HeldBack { lane: asked.bands[*i].band.lane, ms: wait_ms });
            }
        }
    }
    shared
}

/// What is left in a bucket, and whose turn was last.
struct Spent<'a> {
    queue: &'a str,
    key: &'a str,
    tokens: f64,
    at: DateTime<Utc>,
    last: Option<&'a str>,
}

/// Takes the tokens of what was claimed, and remembers whose turn it was.
async fn spend(
    connection: &mut PgConnection,
    claimed: &Claimed,
    locked: &BTreeMap<String, Limited>,
    turns: &HashMap<String, Option<String>>,
    asked: &Asked<'_>,
    keys: &Keys,
) -> Result<(), StoreError> {
    let mut rows: Vec<Spent> = Vec::new();
    for (queue, limited) in locked {
        let key_of = |band| limited.bands.iter().find(|i| asked.bands[**i].band == band).and_then(|i| keys.get(i));
        let mut taken: HashMap<&str, usize> = HashMap::new();
        for (key, _) in claimed.tasks.iter().filter_map(|task| key_of(task.band)) {
            *taken.entry(key).or_default() += 1;
        }
        let count: usize = taken.values().sum();
        if count == 0 {
            continue;
        }
        let last = turns.get(queue).and_then(Option::as_deref);
        rows.push(Spent { queue, key: "", tokens: limited.of_queue().without(count).tokens, at: limited.at, last });
        if limited.settings.rate_by_key.is_some() {
            let of_keys = taken.into_iter().filter(|(key, _)| !key.is_empty());
            let spent = |(key, n)| {
                let tokens = limited.of_key(key).without(n).tokens;
                Spent { queue, key, tokens, at: limited.at, last: None }
            };
            rows.extend(of_keys.map(spent));
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(SPEND)
        .bind(rows.iter().map(|row| row.queue).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.key).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.tokens).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.at).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.last).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}
