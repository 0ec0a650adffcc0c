//! An installation whose every part is a process, and whose every way between two parts can be broken.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use taskmaster_store::{DatabaseArgs, Store};

use super::clock::Clocks;
use super::history::{History, Stamp};
use super::load::Book;
use super::proxy::{Flows, Proxy, Swap};
use super::support::{Api, Cluster, Database, JOIN_TOKEN, PATIENCE, Process, is_alive, until, until_within};
use super::target::Targets;

/// Where a process listens, at its place.
const LISTENS: u16 = 8000;
/// Where others reach it.
const REACHED: u16 = 8001;
/// Where it reaches the database.
const DATABASE: u16 = 8002;

/// An address on loopback that nobody else uses: its ports are all free.
pub fn places() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let [.., a, b] = std::process::id().to_be_bytes();
    assert!(number < 255, "too many places");
    Ipv4Addr::new(127, a.max(1), b, number as u8).into()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Gateway,
    Coordinator,
    Worker,
}

/// A process, and the ways to it and from it to the database.
pub struct Part {
    pub kind: Kind,
    name: String,
    arguments: Vec<String>,
    process: Option<Process>,
    paused: bool,
    /// The id that it gave itself at its last start; none of gateways.
    pub id: String,
    /// The way to it: clients to a gateway, workers to a coordinator, coordinators to a worker.
    pub reached: Proxy,
    /// The way from it to the database; none of workers.
    pub database: Option<Proxy>,
    environment: Vec<(&'static str, String)>,
}

impl Part {
    /// Starts its process, and waits until it listens.
    pub async fn start(&mut self) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut process = Process::spawn(&self.name, &arguments, &environment);
        let (message, id) = match self.kind {
            Kind::Gateway => ("gateway", "none"),
            Kind::Coordinator => ("coordinator", "id"),
            Kind::Worker => ("worker listens", "worker_id"),
        };
        let line = process.logged(message).await;
        self.id = line[id].as_str().unwrap_or_default().to_owned();
        self.process = Some(process);
        self.paused = false;
        self.reached.admit().await;
    }

    fn living(&mut self) -> Option<&mut Process> {
        let process = self.process.as_mut()?;
        if process.has_ended() { None } else { Some(process) }
    }

    /// Whether its process is there, stopped or not.
    pub fn runs(&mut self) -> bool {
        self.living().is_some()
    }

    /// Whether its process has ended without being killed here.
    pub fn ended_by_itself(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::has_ended)
    }

    /// Kills it, if it has not ended by itself: from now on its port refuses.
    pub fn kill9(&mut self) {
        if let Some(process) = self.living() {
            process.kill9();
        }
        self.process = None;
        self.reached.refuse();
    }

    /// Everything gets through again, both ways.
    pub fn open_ways(&self) {
        for way in std::iter::once(&self.reached).chain(&self.database) {
            way.set(Flows::PASS);
            way.lose_no_more();
        }
    }

    pub fn pause(&mut self) {
        if let Some(process) = self.living() {
            process.pause();
            self.paused = true;
        }
    }

    pub fn resume(&mut self) {
        if std::mem::take(&mut self.paused)
            && let Some(process) = self.living()
        {
            process.resume();
        }
    }
}

/// What to start.
#[derive(Debug, Clone)]
pub struct Plan {
    pub gateways: usize,
    pub coordinators: usize,
    pub workers: usize,
    /// Seconds between heartbeats; three missed ones are the lease.
    pub heartbeat_seconds: f64,
    /// A cluster of its own, which may be killed.
    pub own_cluster: bool,
    pub worker_arguments: &'static [&'static str],
    pub coordinator_arguments: &'static [&'static str],
    /// What coordinators tell the database instead of what they mean to.
    pub sabotage: &'static [Swap],
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            gateways: 1,
            coordinators: 1,
            workers: 2,
            heartbeat_seconds: 1.0,
            own_cluster: false,
            worker_arguments: &[],
            coordinator_arguments: &[],
            sabotage: &[],
        }
    }
}

/// Everything that runs. Killed when dropped.
pub struct World {
    pub gateways: Vec<Part>,
    pub coordinators: Vec<Part>,
    pub workers: Vec<Part>,
    pub targets: Arc<Targets>,
    /// The database, by the direct way.
    pub database: Database,
    cluster: Option<Cluster>,
    plan: Plan,
    /// The wall clocks of coordinators and workers.
    clocks: Option<Clocks>,
}

impl World {
    /// Starts everything, and waits until it is ready and every worker is listed.
    pub async fn start(plan: Plan) -> Self {
        let cluster = if plan.own_cluster { Some(Cluster::start().await) } else { None };
        Self::start_with(plan, cluster, None).await
    }

    /// As [`Self::start`], on this cluster, or with clocks that can be set.
    pub async fn start_with(plan: Plan, cluster: Option<Cluster>, clocks: Option<Clocks>) -> Self {
        let (cluster, database) = match cluster {
            None => (None, Database::new().await),
            Some(cluster) => {
                let store = Store::new(cluster.server().connect_options(), &DatabaseArgs::default());
                store.migrate().await.expect("the schema");
                store.close().await;
                let database = cluster.database();
                (Some(cluster), database)
            }
        };
        Self::start_on(database, cluster, plan, clocks).await
    }

    /// As [`Self::start_with`], on a database that has the schema.
    pub async fn start_on(database: Database, cluster: Option<Cluster>, plan: Plan, clocks: Option<Clocks>) -> Self {
        let targets = Arc::new(Targets::start().await);
        let (gateways, coordinators, workers) = (plan.gateways, plan.coordinators, plan.workers);
        let (none, no, nobody) = (Vec::new(), Vec::new(), Vec::new());
        let mut world =
            Self { gateways: none, coordinators: no, workers: nobody, targets, database, cluster, plan, clocks };
        for _ in 0..gateways {
            let part = world.part(Kind::Gateway).await;
            world.gateways.push(part);
        }
        for _ in 0..coordinators {
            let part = world.part(Kind::Coordinator).await;
            world.coordinators.push(part);
        }
        for _ in 0..workers {
            world.add_worker().await;
        }
        world.ready().await;
        world
    }

    pub async fn add_worker(&mut self) -> usize {
        let part = self.part(Kind::Worker).await;
        self.workers.push(part);
        self.workers.len() - 1
    }

    async fn part(&mut self, kind: Kind) -> Part {
        let place = places();
        let at = |port| SocketAddr::new(place, port);
        let database = match kind {
            Kind::Worker => None,
            _ => Some(Proxy::start(at(DATABASE), self.database_address()).await),
        };
        if let (Kind::Coordinator, Some(database)) = (kind, &database) {
            database.swap(self.plan.sabotage);
        }
        let mut part = Part {
            kind,
            name: format!("{kind:?} {place}"),
            arguments: self.arguments(kind, place),
            process: None,
            paused: false,
            id: String::new(),
            reached: Proxy::start(at(REACHED), at(LISTENS)).await,
            database,
            environment: self.environment(kind, place),
        };
        part.start().await;
        part
    }

    fn arguments(&self, kind: Kind, place: IpAddr) -> Vec<String> {
        let listen = format!("{place}:{LISTENS}");
        let advertise = format!("http://{place}:{REACHED}");
        let mut arguments: Vec<String> = match kind {
            Kind::Gateway => vec!["gateway".into()],
            Kind::Coordinator => {
                let heartbeat = self.plan.heartbeat_seconds.to_string();
                // The whole log is read at the end.
                let fixed = ["--events-kept-seconds", "86400", "--heartbeat-seconds"];
                let given = self.plan.coordinator_arguments.iter().map(|text| (*text).to_owned());
                let fixed = fixed.iter().map(|text| (*text).to_owned()).chain([heartbeat]).chain(given);
                std::iter::once("coordinator".to_owned()).chain(fixed).collect()
            }
            Kind::Worker => {
                let number = self.workers.len();
                let mut urls: Vec<String> = self.coordinators.iter().map(|part| part.reached.url()).collect();
                let turn = number % urls.len();
                urls.rotate_left(turn);
                let fixed = ["worker", "--allow-targets", "loopback", "--allow-commands", "--labels", "zone=faults"];
                let fixed = fixed.iter().chain(self.plan.worker_arguments).map(|text| (*text).to_owned());
                fixed.chain(["--coordinator-url".to_owned(), urls.join(",")]).collect()
            }
        };
        arguments.extend(["--listen".to_owned(), listen]);
        if kind != Kind::Gateway {
            arguments.extend(["--advertise".to_owned(), advertise, "--join-token".to_owned(), JOIN_TOKEN.to_owned()]);
        }
        arguments
    }

    fn environment(&self, kind: Kind, place: IpAddr) -> Vec<(&'static str, String)> {
        let (before, after) = self.database.url.split_once('@').expect("a URL with a user");
        let (_, name) = after.split_once('/').expect("a URL with a database");
        let url = format!("{before}@{place}:{DATABASE}/{name}");
        let mut environment = match kind {
            Kind::Worker => Vec::new(),
            _ => vec![
                ("DATABASE_URL", url),
                ("TASKMASTER_DATABASE_POOL_MAX", "8".to_owned()),
                ("TASKMASTER_ALLOWED_HOSTS", place.to_string()),
            ],
        };
        environment.extend(self.clocks.iter().flat_map(|clocks| clocks.environment(place)));
        environment
    }

    fn database_address(&self) -> SocketAddr {
        let (_, after) = self.database.url.split_once('@').expect("a URL with a user");
        let (address, _) = after.split_once('/').expect("a URL with a database");
        address.parse().expect("an address")
    }

    /// A client of a gateway.
    pub fn api(&self, gateway: usize) -> Api {
        Api::new(&self.gateways[gateway].reached.url())
    }

    pub fn parts(&mut self) -> impl Iterator<Item = &mut Part> {
        self.gateways.iter_mut().chain(&mut self.coordinators).chain(&mut self.workers)
    }

    /// Waits until every gateway and coordinator is ready, and every worker is listed, and no other.
    pub async fn ready(&mut self) {
        for part in self.gateways.iter().chain(&self.coordinators) {
            let api = Api::new(&part.reached.url());
            let what = format!("{} is ready", part.name);
            until(&what, async || api.readyz().await.filter(|status| *status == 200)).await;
        }
        let mut ids: Vec<String> = self.workers.iter().map(|part| part.id.clone()).collect();
        ids.sort_unstable();
        let api = self.api(0);
        until("exactly the workers that run are listed", async || (api.worker_ids().await == ids).then_some(())).await;
    }

    /// Sets the wall clock of a part, by so many seconds from the true time.
    pub fn set_clock(&self, part: &Part, seconds: i64) {
        self.clocks.as_ref().expect("clocks that can be set").set(part.reached.address().ip(), seconds);
    }

    /// Whether the database's main process is there.
    pub fn database_runs(&self) -> bool {
        is_alive(self.cluster.as_ref().expect("a cluster of its own").server().pid())
    }

    /// Stops the database where it is, all its processes.
    pub fn pause_database(&self) {
        self.cluster.as_ref().expect("a cluster of its own").pause();
    }

    pub fn resume_database(&self) {
        self.cluster.as_ref().expect("a cluster of its own").resume();
    }

    /// Kills the database, processes and all.
    pub fn kill_database(&mut self) {
        self.cluster.as_mut().expect("a cluster of its own").kill9();
    }

    /// Starts the database again.
    pub async fn start_database(&mut self) {
        let cluster = self.cluster.as_mut().expect("a cluster of its own");
        cluster.start_again().await;
        self.database = cluster.database();
        let address = self.database_address();
        for proxy in self.parts().filter_map(|part| part.database.as_ref()) {
            proxy.lead_to(address);
        }
    }

    /// Makes everything whole again: all ways are open, everybody goes on, the dead are started again.
    pub async fn heal(&mut self) {
        for part in self.parts() {
            part.open_ways();
            part.resume();
            if !part.runs() {
                part.kill9();
                part.start().await;
            }
        }
    }

    /// Starts workers that have ended by themselves again.
    pub async fn tend(&mut self) {
        for worker in &mut self.workers {
            if worker.ended_by_itself() {
                worker.kill9();
                worker.start().await;
            }
        }
    }

    /// What clients of all gateways write in.
    pub fn book(&self) -> Arc<Book> {
        Book::new(self.gateways.iter().map(|part| part.reached.url()).collect())
    }

    /// A number that the database has.
    pub async fn count(&self, query: &'static str) -> i64 {
        self.database.number(query).await
    }

    /// Waits until no task is live any more, and the events of all are in the log.
    pub async fn quiet(&self, limit: Duration) {
        let live = "select count(*) from tasks";
        let began = Stamp::now().monotonic;
        let what = "every task ends";
        until_within(limit, what, async || (self.count(live).await == 0).then_some(())).await;
        let inbox = "select count(*) from event_inbox";
        until("every event is in the log", async || (self.count(inbox).await == 0).then_some(())).await;
        eprintln!("    everything has ended {:.1} s after the end of the load", Stamp::now().monotonic - began);
    }

    /// Waits until everything is over, and adds what targets and the database know to what the client knows.
    pub async fn finish(&mut self, history: &mut History, limit: Duration) {
        self.heal().await;
        self.ready().await;
        self.quiet(limit).await;
        // Runs whose claim was lost may still go on for a while; they are stopped with the next heartbeat.
        let api = self.api(0);
        let idle = async || api.workers().await.iter().all(|worker| worker.held == 0).then_some(());
        until("no worker holds anything", idle).await;
        history.executions = self.targets.executions();
        history.counters = api.stats().await.tasks;
        history.read_database(&self.database.url).await;
    }
}

/// Longest wait for the end of everything, in tests of one fault.
pub const END: Duration = PATIENCE;
