//! The measurements, the same for every peer. A job is done when the database says so.

use std::time::{Duration, Instant};

use futures::future::{try_join, try_join_all};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use tokio::time::{sleep, sleep_until};

use crate::job::{Job, handled, latencies_ms};
use crate::{Args, Peer, Result};

const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Workers listen and are connected before anything is measured.
const WARM_UP: Duration = Duration::from_secs(1);
const LATENCY_EVERY: Duration = Duration::from_millis(20);

pub async fn drain<P: Peer>(peer: &P, args: &Args) -> Result<Value> {
    let began = Instant::now();
    insert_all(peer, args).await?;
    let inserted = began.elapsed();
    peer.start().await?;
    all_done(peer, args.tasks).await?;
    Ok(json!({ "handled": handled(), "insert": seconds(inserted), "total": seconds(began.elapsed()) }))
}

pub async fn both<P: Peer>(peer: &P, args: &Args) -> Result<Value> {
    peer.start().await?;
    sleep(WARM_UP).await;
    let began = Instant::now();
    let inserting = async {
        insert_all(peer, args).await?;
        Ok(began.elapsed())
    };
    let (inserted, ()) = try_join(inserting, all_done(peer, args.tasks)).await?;
    Ok(json!({ "handled": handled(), "insert": seconds(inserted), "total": seconds(began.elapsed()) }))
}

pub async fn sustained<P: Peer>(peer: &P, args: &Args) -> Result<Value> {
    peer.start().await?;
    sleep(WARM_UP).await;
    let end = Instant::now() + Duration::from_secs_f64(args.seconds);
    let producers = try_join_all((0..args.connections).map(|_| insert_until(peer, args, end)));
    let (inserted, samples) = try_join(producers, sample(args.seconds)).await?;
    let inserted = inserted.iter().sum();
    all_done(peer, inserted).await?;
    Ok(json!({ "handled": handled(), "inserted": inserted, "samples": samples }))
}

pub async fn latency<P: Peer>(peer: &P, args: &Args) -> Result<Value> {
    peer.start().await?;
    sleep(WARM_UP).await;
    for _ in 0..args.tasks {
        peer.insert(vec![Job::sent_now()]).await?;
        sleep(LATENCY_EVERY).await;
    }
    all_done(peer, args.tasks).await?;
    Ok(json!({ "handled": handled(), "latencies_ms": latencies_ms() }))
}

async fn insert_all<P: Peer>(peer: &P, args: &Args) -> Result<()> {
    let sizes = (0..args.tasks).step_by(args.batch as usize).map(|first| args.batch.min(args.tasks - first));
    let inserts = stream::iter(sizes).map(|size| peer.insert(vec![Job::new(); size as usize]));
    inserts.buffer_unordered(args.connections).try_collect().await
}

/// One producer of a sustained run: gives back how many jobs it inserted.
async fn insert_until<P: Peer>(peer: &P, args: &Args, end: Instant) -> Result<u64> {
    let mut inserted = 0;
    let backlog = args.backlog / args.connections as u64;
    while Instant::now() < end {
        let waiting = inserted - (handled() / args.connections as u64).min(inserted);
        if waiting + args.batch <= backlog {
            peer.insert(vec![Job::new(); args.batch as usize]).await?;
            inserted += args.batch;
        } else {
            sleep(LOOK_EVERY).await;
        }
    }
    Ok(inserted)
}

/// How many jobs were handled after each tenth of the time.
async fn sample(seconds: f64) -> Result<Vec<u64>> {
    let began = tokio::time::Instant::now();
    let mut samples = Vec::new();
    for tenth in 1..=10 {
        sleep_until(began + Duration::from_secs_f64(seconds * f64::from(tenth) / 10.0)).await;
        samples.push(handled());
    }
    Ok(samples)
}

/// The handlers' count is looked at first: asking the database all the time would slow it down.
async fn all_done<P: Peer>(peer: &P, tasks: u64) -> Result<()> {
    while handled() < tasks || peer.left(tasks).await? > 0 {
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
