//! The checker at work: nothing is broken but the product itself, on purpose, and the checker turns red.
//!
//! What coordinators tell the database is changed on its way. So the program under test is the one that ships, and has no switches.

use taskmaster_openapi::report::TaskClaim;

use super::checker::{Rule, check};
use super::history::History;
use super::liar::{Liar, lies};
use super::load::{Clients, Pace};
use super::mixed::held_by_others;
use super::proxy::Swap;
use super::support::until;
use super::world::{END, Plan, World};

/// Reports are believed whatever claim they name, and whoever sends them.
const FENCE_OFF: &[Swap] =
    &[("t.claim = r.claim and t.worker_id = r.worker_id and t.status in (1, 2)", "t.status in (1, 2)")];

/// A worker is given up however fresh its last heartbeat is.
const LEASE_IGNORED: &[Swap] = &[
    (
        "seen_at <= now() - $1 * interval '1 second' limit 1000",
        "seen_at <= now() - $1 * interval '0 second' limit 1000",
    ),
    (
        "seen_at <= now() - $2 * interval '1 second' returning id",
        "seen_at <= now() - $2 * interval '0 second' returning id",
    ),
];

/// A task that succeeded leaves `tasks`, and does not come into the history.
const OUTCOME_DROPPED: &[Swap] = &[(
    "greatest(picked_at, now() - coalesce(started_ms, 0) * interval '1 millisecond')) as started_at) s",
    "picked_at) as started_at) s where false",
)];

/// A task that is to be tried again is there twice from then on.
const RETRY_DOUBLED: &[Swap] = &[(
    "), bands as (
    select lane, priority, null::bigint as n, min(run_at) as first
      from again where run_at < now() + interval '30 seconds' group by lane, priority limit 101
), news as (
    select case when count(*) > 100 then '*' else string_agg(concat_ws(':', lane, priority, coalesce(n::text, ''),
                (extract(epoch from first) * 1000000)::bigint), ',') end as due
      from bands having count(*) > 0
)
select (select due from news), count(*) from before",
    "), doubled as (insert into tasks (id, run_at, created_at, scheduled_at, lane, timeout_seconds, priority, max_attempts, attempt, \
     work, tags) select gen_random_uuid(), now(), created_at, scheduled_at, lane, timeout_seconds, priority, max_attempts, new_attempt, \
     work, tags from before where next = 0) select null::text, count(*) from before",
)];

const PACE: Pace = Pace { clients: 4, pause_ms: 50, batch_max: 8, commands: 10 };

/// What happens to 150 tasks and more while nothing is broken but this, and somebody lies about claims.
async fn history_with(sabotage: &'static [Swap]) -> History {
    let plan = Plan { sabotage, coordinator_arguments: &["--poll-seconds", "1"], ..Plan::default() };
    let mut world = World::start(plan).await;
    let book = world.book();
    let clients = Clients::start(&book, &world.targets, PACE, 1);
    let mut liar = Liar::new().await;
    let coordinator = world.coordinators[0].reached.url();
    until("tasks are accepted, and lied about", async || {
        let held = held_by_others(&world.database.url).await;
        let _ = liar.beat(&coordinator, 0, Vec::new()).await;
        let wrong = held.into_iter().map(|claim| TaskClaim { claim: claim.claim + 1_000, ..claim });
        let _ = liar.report(&coordinator, &liar.id, wrong.flat_map(lies).collect()).await;
        (book.accepted() >= 150).then_some(())
    })
    .await;
    let mut history = clients.stop().await;
    liar.leave(&coordinator).await;
    world.finish(&mut history, END).await;
    let unused = world.coordinators[0].database.as_ref().expect("a way").not_swapped();
    assert!(unused.is_empty(), "no statement has these texts any more: {unused:?}");
    history.calm = true;
    history
}

async fn rules_broken_with(sabotage: &'static [Swap]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = check(&history_with(sabotage).await).iter().map(|violation| violation.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

#[tokio::test]
async fn without_sabotage_the_checker_finds_nothing() {
    super::checker::assert_whole(&history_with(&[]).await);
}

#[tokio::test]
async fn with_the_fence_off_the_checker_finds_outcomes_that_no_run_had() {
    let rules = rules_broken_with(FENCE_OFF).await;
    assert!(rules.contains(&Rule::NeverRan) || rules.contains(&Rule::WrongEnd), "{rules:?}");
}

#[tokio::test]
async fn with_the_lease_ignored_the_checker_finds_claims_that_were_taken_away() {
    let rules = rules_broken_with(LEASE_IGNORED).await;
    assert!(rules.contains(&Rule::LostWithoutCause), "{rules:?}");
}

#[tokio::test]
async fn with_outcomes_dropped_the_checker_finds_lost_tasks() {
    let rules = rules_broken_with(OUTCOME_DROPPED).await;
    assert!(rules.contains(&Rule::Lost), "{rules:?}");
}

#[tokio::test]
async fn with_retries_doubled_the_checker_finds_doubled_tasks() {
    let rules = rules_broken_with(RETRY_DOUBLED).await;
    assert!(rules.contains(&Rule::Doubled), "{rules:?}");
}
