//! One peer, measured once: `taskmaster-peers PEER MEASURE`. Prints one line of JSON.
//!
//! `node/main.mjs` does the same for the peers on Node; `run.py` starts both.

mod apalis;
mod awa;
mod graphile;
mod job;
mod measure;

use clap::{Parser, ValueEnum};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Clone, Copy, ValueEnum)]
enum PeerName {
    GraphileWorker,
    Apalis,
    Awa,
}

#[derive(Clone, Copy, ValueEnum)]
enum MeasureName {
    /// Insert all jobs, then start the workers
    Drain,
    /// Start the workers, then insert all jobs
    Both,
    /// Insert for some seconds as fast as the workers work
    Sustained,
    /// One job at a time, seldom
    Latency,
}

#[derive(Parser)]
struct Args {
    peer: PeerName,
    measure: MeasureName,
    #[arg(long, env = "DATABASE_URL")]
    database_url: String,
    /// Jobs
    #[arg(long, default_value_t = 100_000)]
    tasks: u64,
    /// Jobs of one insert
    #[arg(long, default_value_t = 2_000)]
    batch: u64,
    /// Inserts at once
    #[arg(long, default_value_t = 2)]
    connections: usize,
    /// How long a sustained run lasts
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// The most jobs that wait in a sustained run
    #[arg(long, default_value_t = 20_000)]
    backlog: u64,
}

/// What a peer does for a measurement.
trait Peer: Sized {
    /// Creates the schema. The workers do not run yet.
    async fn set_up(database_url: &str) -> Result<Self>;
    /// Inserts jobs; they are committed when it returns.
    async fn insert(&self, jobs: Vec<job::Job>) -> Result<()>;
    /// Starts the workers, which run until the process ends.
    async fn start(&self) -> Result<()>;
    /// How many jobs of so many are not yet done, for good, in the database.
    async fn left(&self, tasks: u64) -> Result<u64>;
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let figures = match args.peer {
        PeerName::GraphileWorker => run::<graphile::Graphile>(&args).await?,
        PeerName::Apalis => run::<apalis::Apalis>(&args).await?,
        PeerName::Awa => run::<awa::Awa>(&args).await?,
    };
    println!("{figures}");
    // Workers are still running; all that they have done is in the database.
    std::process::exit(0);
}

async fn run<P: Peer>(args: &Args) -> Result<serde_json::Value> {
    let peer = P::set_up(&args.database_url).await?;
    match args.measure {
        MeasureName::Drain => measure::drain(&peer, args).await,
        MeasureName::Both => measure::both(&peer, args).await,
        MeasureName::Sustained => measure::sustained(&peer, args).await,
        MeasureName::Latency => measure::latency(&peer, args).await,
    }
}
