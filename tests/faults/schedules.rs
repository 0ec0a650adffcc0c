//! Schedules that fire every second, while coordinators are killed by turns and both at once: no occurrence is missed, and none has two
//! tasks. A few seconds of it in every test run; the long form is
//! `TASKMASTER_FAULTS_SCHEDULES=1000 TASKMASTER_FAULTS_SECONDS=600 cargo test --release --test faults -- --nocapture schedules`.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use rand::Rng;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::history::Spec;
use super::target::Deed;
use super::world::{Plan, World};

struct Form {
    schedules: i64,
    seconds: i64,
    plan: Plan,
    end_within: Duration,
}

impl Form {
    fn of_environment() -> Self {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<i64>().expect(name));
        let plan = Plan { coordinators: 2, workers: 2, worker_arguments: &["--slots", "8"], ..Plan::default() };
        let short = Self { schedules: 40, seconds: 15, plan, end_within: Duration::from_secs(60) };
        match number("TASKMASTER_FAULTS_SCHEDULES") {
            None => short,
            Some(schedules) => Self {
                schedules,
                seconds: number("TASKMASTER_FAULTS_SECONDS").unwrap_or(600),
                plan: Plan { worker_arguments: &["--slots", "50"], own_cluster: true, ..short.plan },
                end_within: Duration::from_secs(240),
            },
        }
    }

    fn occurrences(&self) -> i64 {
        self.schedules * self.seconds
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_miss_no_occurrence_and_fire_none_twice_while_coordinators_are_killed() {
    let form = Form::of_environment();
    let mut world = World::start(form.plan.clone()).await;
    let starts_at = Utc::now().trunc_subsecs(0) + TimeDelta::seconds(3 + form.schedules / 20);
    let ends_at = starts_at + TimeDelta::seconds(form.seconds - 1);
    let task = world.targets.task(Deed::Http { ms: 0 }, &Spec::default());
    let api = world.api(0);
    for _ in 0..form.schedules {
        let schedule =
            json!({"every_seconds": 1, "starts_at": starts_at, "ends_at": ends_at, "catch_up": "all", "task": task});
        assert_eq!(api.post("/v1/schedules", &schedule).await.status, 201);
    }
    // What would have occurred before a schedule was there is nobody's.
    assert!(Utc::now() < starts_at, "the machine is too busy: the schedules were not there in time");

    let kills = kill_by_turns(&mut world, ends_at).await;
    world.heal().await;
    world.ready().await;
    let fired = format!(
        "select count(*) from schedules where is_over and next_fire_at is null having count(*) = {}",
        form.schedules
    );
    super::support::until_within(form.end_within, "every schedule comes to its end", async || {
        let mut connection = PgConnection::connect(&world.database.url).await.ok()?;
        sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(fired.clone())).fetch_optional(&mut connection).await.ok()?
    })
    .await;
    world.quiet(form.end_within).await;
    check(&world, &form, starts_at, ends_at, kills).await;
}

/// Kills one coordinator or both, lets others wait for a moment, and starts them again, until a second after this time.
async fn kill_by_turns(world: &mut World, until: DateTime<Utc>) -> usize {
    let mut kills = 0;
    let until = Instant::now() + (until - Utc::now()).to_std().unwrap_or_default() + Duration::from_secs(1);
    for turn in 0.. {
        let (lives, gone) = {
            let mut random = rand::rng();
            (random.random_range(300..1_500), random.random_range(100..2_000))
        };
        tokio::time::sleep(Duration::from_millis(lives)).await;
        if Instant::now() >= until {
            break;
        }
        // Every third time nobody is left.
        let victims = match turn % 3 {
            2 => vec![0, 1],
            one => vec![one],
        };
        victims.iter().for_each(|victim| world.coordinators[*victim].kill9());
        kills += victims.len();
        tokio::time::sleep(Duration::from_millis(gone)).await;
        for victim in victims {
            world.coordinators[victim].start().await;
        }
    }
    kills
}

async fn check(world: &World, form: &Form, starts_at: DateTime<Utc>, ends_at: DateTime<Utc>, kills: usize) {
    let mut connection = world.database.connect().await;
    let (runs, occurrences, tasks, first, last): (i64, i64, i64, DateTime<Utc>, DateTime<Utc>) = sqlx::query_as(
        "select count(*), count(distinct (schedule_id, fire_at)), count(distinct task_id), min(fire_at), max(fire_at)
           from schedule_runs where state = 0 and kind = 0",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!((runs, occurrences, tasks), (form.occurrences(), form.occurrences(), form.occurrences()));
    assert_eq!((first, last), (starts_at, ends_at));
    assert_eq!(world.count("select count(*) from schedule_runs where state <> 0").await, 0, "missed, or left out");
    assert_eq!(world.count("select count(*) from task_history where status = 3").await, form.occurrences());
    let foreign = "select count(*) from task_history h left join schedule_runs r on r.task_id = h.id and r.schedule_id = h.schedule_id
                    where r.run_at is distinct from h.scheduled_at";
    assert_eq!(world.count(foreign).await, 0, "tasks that no occurrence has");

    // What the target has seen: every task, and no other.
    let made: Vec<Uuid> = sqlx::query_scalar("select id from task_history").fetch_all(&mut connection).await.unwrap();
    let hits: Vec<Uuid> = world.targets.executions().into_iter().map(|run| run.task).collect();
    let seen: HashSet<Uuid> = hits.iter().copied().collect();
    assert_eq!(seen, made.into_iter().collect::<HashSet<Uuid>>());
    let late: Vec<f64> = sqlx::query_scalar(
        "select unnest(percentile_cont(array [0.5, 0.9, 0.99, 1]) within group
                (order by extract(epoch from started_at - scheduled_at)::float8)) from task_history",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    eprintln!(
        "    {} schedules, every second for {} s: {runs} occurrences, none missed, none twice; coordinators killed {kills} times; \
         {} requests were made again; started late by {late:.3?} s (50, 90, 99, 100 %)",
        form.schedules,
        form.seconds,
        hits.len() - seen.len(),
    );
}
