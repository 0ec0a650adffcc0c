//! Who gets which tasks, how many at once, and in which order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taskmaster_openapi::task::TaskStatus;
use uuid::Uuid;

use crate::support::{Answer, Gate, System, Target, until};

/// How many of the tasks each worker ran.
async fn shares(system: &System) -> BTreeMap<String, usize> {
    let mut shares: BTreeMap<String, usize> = BTreeMap::new();
    for task in system.api.list("").await {
        assert_eq!(task.status, TaskStatus::Complete, "{task:?}");
        *shares.entry(task.worker_id.unwrap()).or_default() += 1;
    }
    shares
}

#[tokio::test]
async fn idle_workers_take_turns_and_get_the_same_number_of_tasks() {
    let target = Target::start(|_| Answer::ok().after(Duration::from_millis(300))).await;
    let system = System::builder().workers(4).start().await;
    let ids = system.api.create_batch(&vec![target.task(); 20]).await;
    system.api.all_ended(&ids).await;
    assert_eq!(shares(&system).await.into_values().collect::<Vec<_>>(), [5; 4]);
}

#[tokio::test]
async fn tasks_that_come_one_by_one_go_round() {
    let target = Target::quick().await;
    let system = System::builder().workers(3).start().await;
    let mut workers = Vec::new();
    for _ in 0..9 {
        workers.push(system.api.run(target.task()).await.worker_id.unwrap());
    }
    let first: HashSet<&String> = workers[..3].iter().collect();
    assert_eq!(first.len(), 3, "{workers:?}");
    assert_eq!((&workers[..3], &workers[..3]), (&workers[3..6], &workers[6..]));
}

#[tokio::test]
async fn more_tasks_than_slots_are_shared_alike_among_workers_that_are_equally_fast() {
    let system = System::builder().workers(4).worker_args(&["--simulate", "0.5"]).start().await;
    let ids = system.api.create_batch(&vec![json!({"argv": ["true"]}); 80]).await;
    system.api.all_ended(&ids).await;
    let shares: Vec<usize> = shares(&system).await.into_values().collect();
    // Each claims again as its slots get free, so a round may end with one worker a slot ahead of another.
    assert!(shares.len() == 4 && shares.iter().all(|share| (15..=25).contains(share)), "{shares:?}");
}

/// As when a coordinator dies while it claims: others have passed what it had locked.
#[tokio::test]
async fn a_task_that_was_locked_when_it_was_its_turn_runs_when_it_is_let_go() {
    let target = Target::quick().await;
    let mut system = System::builder().workers(0).coordinator_args(&["--poll-seconds", "1"]).start().await;
    let passed = system.api.create(target.task()).await.id;
    let mut other = system.database.connect().await;
    let lock =
        "begin; update tasks set run_at = run_at - interval '1 hour'; commit; begin; select from tasks for update";
    sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
    system.add_http_worker().await;
    system.api.run(target.task()).await;
    sqlx::raw_sql("rollback").execute(&mut other).await.unwrap();
    assert_eq!(system.api.ended(passed).await.status, TaskStatus::Complete);
}

/// What comes while its transaction takes seconds is claimed, though it is due later.
#[tokio::test]
async fn a_task_that_is_committed_late_runs_while_others_keep_coming() {
    let target = Target::quick().await;
    let system = System::builder().coordinator_args(&["--poll-seconds", "300"]).start().await;
    let mut sql = system.database.connect().await;
    let dawdle =
        "create function dawdle() returns trigger language plpgsql as 'begin perform pg_sleep(3); return null; end';
        create constraint trigger dawdle after insert on tasks deferrable initially deferred
            for each row when (new.tags ? 'late') execute function dawdle()";
    sqlx::raw_sql(dawdle).execute(&mut sql).await.unwrap();
    let mut task = target.task();
    task["tags"] = json!(["late"]);
    let late = async {
        // Not one by one, or it would travel with the first of the others.
        let ids = system.api.create_batch(&[task]).await;
        system.api.ended(ids[0]).await
    };
    let mut before = 0;
    let others = async {
        loop {
            system.api.run(target.task()).await;
            before += 1;
        }
    };
    let late = tokio::select! {
        late = late => late,
        () = others => unreachable!(),
    };
    assert_eq!(late.status, TaskStatus::Complete);
    assert!(before > 2, "{before} others ran while it was not committed");
}

#[tokio::test]
async fn two_coordinators_never_give_one_task_to_two_workers() {
    const TASKS: usize = 10_000;
    let target = Target::quick().await;
    let system = System::builder()
        .coordinators(2)
        .workers(4)
        .worker_args(&["--slots", "20"])
        .coordinator_args(&["--heartbeat-seconds", "1"])
        .pool_max(15)
        .start()
        .await;
    let homes = async || {
        let homes: HashSet<Uuid> = system.api.workers().await.iter().filter_map(|worker| worker.home).collect();
        (homes.len() == 2).then_some(())
    };
    until("each coordinator has workers", homes).await;

    let before = std::time::Instant::now();
    let ids = system.api.create_batch(&vec![target.task(); TASKS]).await;
    system.api.all_ended_within(Duration::from_secs(300), &ids).await;
    eprintln!("{TASKS} tasks in {:?}", before.elapsed());
    let mut arrivals: HashMap<Uuid, usize> = HashMap::new();
    for arrival in target.arrivals() {
        assert_eq!(arrival.attempt, Some(1));
        *arrivals.entry(arrival.task_id.unwrap()).or_default() += 1;
    }
    assert_eq!(arrivals.len(), TASKS);
    assert!(ids.iter().all(|id| arrivals[id] == 1));
    let shares = shares(&system).await;
    assert!(shares.len() == 4 && shares.values().sum::<usize>() == TASKS, "{shares:?}");
    let claimed = system.api.workers().await.iter().filter_map(|worker| worker.home).collect::<HashSet<Uuid>>();
    assert_eq!(claimed.len(), 2, "both coordinators had workers to the end");
}

/// Long before its second heartbeat would be due.
#[tokio::test]
async fn a_worker_that_is_sent_elsewhere_when_it_joins_has_work_at_once() {
    let target = Target::start(|_| Answer::ok().after(Duration::from_millis(500))).await;
    let mut system = System::builder().workers(0).coordinator_args(&["--heartbeat-seconds", "300"]).start().await;
    system.add_coordinator().await;
    system.ready().await;
    // All of them join at the second one, which has known of the first from its start.
    system.coordinator_urls.remove(0);
    for _ in 0..4 {
        system.add_worker(&["--slots", "1"]).await;
    }
    let at_home = async || {
        let mut homes: HashMap<Uuid, usize> = HashMap::new();
        system
            .api
            .workers()
            .await
            .iter()
            .filter_map(|worker| worker.home)
            .for_each(|home| *homes.entry(home).or_default() += 1);
        (homes.into_values().collect::<Vec<_>>() == [2, 2]).then_some(())
    };
    until("each coordinator has two workers", at_home).await;
    let ids = system.api.create_batch(&vec![target.task(); 4]).await;
    system.api.all_ended(&ids).await;
    assert_eq!(shares(&system).await.into_values().collect::<Vec<_>>(), [1; 4]);
}

#[tokio::test]
async fn a_worker_never_runs_more_tasks_than_it_has_slots() {
    let target = Target::start(|_| Answer::ok().after(Duration::from_secs(1))).await;
    let system = System::builder().start().await;
    let ids = system.api.create_batch(&vec![target.task(); 12]).await;
    system.api.all_ended(&ids).await;
    assert_eq!((target.count(), target.most_in_progress()), (12, 5));
    let arrivals = target.arrivals();
    let took = arrivals[11].at - arrivals[0].at;
    assert!(took >= Duration::from_secs(2), "the last two started after {took:?}");
}

#[tokio::test]
async fn what_no_worker_has_room_for_stays_queued() {
    let system = System::builder().worker_args(&["--simulate", "10"]).start().await;
    let mut events = system.api.events("types=task.started").await;
    let ids = system.api.create_batch(&vec![json!({"argv": ["true"]}); 1_000]).await;
    assert_eq!(ids.len(), 1_000);
    for _ in 0..5 {
        events.next().await;
    }
    assert!(events.next_within(Duration::from_secs(2)).await.is_none(), "no more than there are slots");
    let counts = system.api.stats().await.tasks;
    assert!(counts.queued >= 980, "{counts:?}");
    assert_eq!(counts.started, 5, "{counts:?}");
    let unclaimed = system.database.number("select count(*) from tasks where status = 0 and picked_at is null").await;
    assert!(unclaimed >= 980, "{unclaimed}");
    // And can be cancelled at once.
    let last = system.api.get(ids[999]).await;
    assert_eq!(last.status, TaskStatus::Queued);
    assert_eq!(system.api.cancel(last.id).await.0.as_u16(), 200);
}

/// Its coordinator could not know that they would go on and on.
#[tokio::test]
async fn what_a_worker_holds_behind_tasks_that_go_on_and_on_runs_elsewhere_within_seconds() {
    let gate = Gate::closed();
    let target = Target::start({
        let gate = gate.clone();
        move |arrival| if arrival.path == "/long" { Answer::ok().behind(&gate) } else { Answer::ok() }
    })
    .await;
    let mut system = System::builder().start().await;
    let quick = vec![target.task(); 400];
    let long = vec![json!({"http": {"method": "GET", "url": target.url("/long")}}); 5];
    let ids = system.api.create_batch(&[quick.clone(), long, quick].concat()).await;
    target.arrived(405).await;
    system.add_http_worker().await;
    let began = Instant::now();
    system.api.all_ended(&[&ids[..400], &ids[405..]].concat()).await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(!gate.is_open() && target.in_progress() == 5);
    let back = system.database.number("select count(*) from task_history where hand_backs > 0").await;
    assert!(back > 0, "nothing waited behind them");
    gate.open();
    system.api.all_ended(&ids).await;
    let attempts = system.database.number("select sum(attempt)::bigint from task_history").await;
    assert_eq!((attempts, target.count()), (805, 805), "each was asked for once");
}

#[tokio::test]
async fn commands_that_no_worker_runs_hold_up_no_http_task() {
    let target = Target::quick().await;
    let mut system = System::builder().workers(0).start().await;
    system.add_http_worker().await;
    system.workers_listed(1).await;
    let command = |priority: i64| json!({"command": "true", "priority": priority});
    let commands: Vec<Value> = (0..600).map(|n| command([0, 5, 9][n % 3])).collect();
    let commands = system.api.create_batch(&commands).await;
    let calls = system.api.create_batch(&vec![target.task(); 100]).await;
    system.api.all_ended(&calls).await;
    assert_eq!(target.count(), 100);
    let counts = system.api.stats().await.tasks;
    assert_eq!((counts.queued, counts.picked), (600, 0), "{counts:?}");

    // A worker that runs commands gets them.
    system.add_worker(&["--slots", "50", "--simulate", "0"]).await;
    system.api.all_ended(&commands).await;
}

#[tokio::test]
async fn a_higher_priority_goes_first_and_equals_in_the_order_of_their_creation() {
    let gate = Gate::closed();
    let first = gate.clone();
    let target = Target::start(move |arrival| match arrival.path.as_str() {
        "/first" => Answer::ok().behind(&first),
        _ => Answer::ok(),
    })
    .await;
    let system = System::builder().worker_args(&["--slots", "1"]).start().await;
    let call = |name: &str, priority: i64| json!({"http": {"method": "GET", "url": target.url(&format!("/{name}"))}, "priority": priority});
    system.api.create(call("first", 0)).await;
    target.arrived(1).await;
    for n in 0..5 {
        for priority in [0, 9, 4] {
            system.api.create(call(&format!("{priority}/{n}"), priority)).await;
        }
    }
    gate.open();
    let order: Vec<String> = target.arrived(16).await.into_iter().skip(1).map(|arrival| arrival.path).collect();
    let expected: Vec<String> = [9, 4, 0].iter().flat_map(|p| (0..5).map(move |n| format!("/{p}/{n}"))).collect();
    assert_eq!(order, expected);
}

#[tokio::test]
async fn a_worker_gets_only_tasks_of_the_queues_it_serves() {
    let target = Target::quick().await;
    let mut system = System::builder().workers(0).start().await;
    let mail = system.add_worker(&["--queues", "mail"]).await;
    let reports = system.add_worker(&["--queues", "reports,default"]).await;
    system.workers_listed(2).await;
    for (queue, worker) in [("mail", &mail), ("reports", &reports), ("default", &reports), ("mail", &mail)] {
        let mut task = target.task();
        task["queue"] = json!(queue);
        let task = system.api.run(task).await;
        assert_eq!((task.status, task.worker_id.as_ref()), (TaskStatus::Complete, Some(worker)), "{queue}");
    }
}
