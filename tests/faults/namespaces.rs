//! Packets that are lost between hosts: every part is on a host of its own, and the kernel's TCP is all there is between them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};
use taskmaster_store::{DatabaseArgs, Store};
use uuid::Uuid;

use super::checker::assert_whole;
use super::history::{History, Spec, Stamp};
use super::hits::{ENOUGH, Hits, Whose, volley};
use super::load::{Book, Clients, Pace, hold_back};
use super::network::{Host, Network};
use super::support::{Api, Cluster, Database, JOIN_TOKEN, PATIENCE, Process, until, until_within};
use super::target::{Deed, Targets};
use super::world::Kind;

/// Where every part listens, on its own host.
const PORT: u16 = 8000;

/// A part, alone on its host.
struct Node {
    host: Host,
    process: Process,
    /// The id that it gave itself; none of gateways.
    id: String,
}

impl Node {
    async fn start(host: Host, kind: Kind, arguments: &[String], environment: &[(&str, &str)]) -> Self {
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let listen = format!("{}:{PORT}", host.address);
        arguments.extend(["--listen", &listen]);
        let mut command = host.taskmaster(&arguments);
        command.env("TASKMASTER_LOG_FORMAT", "json").envs(environment.iter().copied());
        let mut process = Process::spawn_command(&format!("{kind:?} {}", host.address), command);
        let (message, id) = match kind {
            Kind::Gateway => ("gateway", "none"),
            Kind::Coordinator => ("coordinator", "id"),
            Kind::Worker => ("worker listens", "worker_id"),
        };
        let id = process.logged(message).await[id].as_str().unwrap_or_default().to_owned();
        Self { host, process, id }
    }

    fn url(&self) -> String {
        format!("http://{}:{PORT}", self.host.address)
    }
}

/// PostgreSQL, alone on its host.
struct DatabaseNode {
    host: Host,
    _process: Process,
    _cluster: Cluster,
    database: Database,
}

impl DatabaseNode {
    /// Makes the database here, and moves it to its host.
    async fn start(host: Host) -> Self {
        let mut cluster = Cluster::start().await;
        let store = Store::new(cluster.server().connect_options(), &DatabaseArgs::default());
        store.migrate().await.expect("the schema");
        store.close().await;
        let server = cluster.server();
        let (data, program) = (server.directory().join("postgres/data"), server.bin().join("postgres"));
        let (local, url) = (format!("127.0.0.1:{}", server.port()), server.url());
        let url = url.replace(&local, &format!("{}:{PORT}", host.address));
        cluster.stop().await;
        let rules = data.join("pg_hba.conf");
        let everybody = "host all all 198.18.0.0/15 scram-sha-256\n";
        std::fs::write(&rules, everybody).expect("written");
        let mut command = host.command("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=INT"]);
        command.arg(program).arg("-D").arg(data).args(["-p", &PORT.to_string(), "-c", "unix_socket_directories="]);
        command.arg("-c").arg(format!("listen_addresses={}", host.address)).current_dir("/");
        let process = Process::spawn_command("PostgreSQL", command);
        let database = Database { url };
        let answers = async || PgConnection::connect(&database.url).await.ok().map(drop);
        until("the database answers", answers).await;
        Self { host, _process: process, _cluster: cluster, database }
    }

    /// The tasks that a worker holds.
    async fn held_by(&self, worker: &str) -> Vec<Uuid> {
        let mut connection = self.database.connect().await;
        let held = sqlx::query_scalar("select id from tasks where status > 0 and worker_id = $1").bind(worker);
        held.fetch_all(&mut connection).await.expect("the tasks")
    }
}

/// Everything, each part on a host of its own; the clients and the targets are in the hub.
struct Installation {
    network: Network,
    database: DatabaseNode,
    gateways: Vec<Node>,
    coordinators: Vec<Node>,
    workers: Vec<Node>,
    targets: Arc<Targets>,
}

struct Plan {
    gateways: usize,
    coordinators: usize,
    workers: usize,
    heartbeat_seconds: f64,
    worker_arguments: &'static [&'static str],
}

impl Plan {
    /// One for each part, and one for the database.
    const fn hosts(&self) -> u8 {
        (self.gateways + self.coordinators + self.workers + 1) as u8
    }
}

impl Installation {
    async fn start(network: Network, plan: &Plan) -> Self {
        let mut hosts = network.hosts();
        let mut host = || hosts.next().expect("a host");
        let database = DatabaseNode::start(host()).await;
        let targets = Arc::new(Targets::start_at(network.hub().address).await);
        let (mut gateways, mut coordinators, mut workers) = (Vec::new(), Vec::new(), Vec::new());
        let url = database.database.url.clone();
        let environment = |address: &IpAddr| {
            let of_database = [("DATABASE_URL", url.clone()), ("TASKMASTER_DATABASE_POOL_MAX", "8".to_owned())];
            let known_as = [("TASKMASTER_ALLOWED_HOSTS", address.to_string())];
            of_database.into_iter().chain(known_as).collect::<Vec<_>>()
        };
        for kind in std::iter::repeat_n(Kind::Gateway, plan.gateways)
            .chain(std::iter::repeat_n(Kind::Coordinator, plan.coordinators))
        {
            let host = host();
            let environment = environment(&host.address);
            let environment: Vec<(&str, &str)> =
                environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let node = Node::start(host, kind, &arguments(kind, plan), &environment).await;
            match kind {
                Kind::Gateway => gateways.push(node),
                _ => coordinators.push(node),
            }
        }
        for number in 0..plan.workers {
            let mut urls: Vec<String> = coordinators.iter().map(Node::url).collect();
            let turn = number % urls.len();
            urls.rotate_left(turn);
            let mut arguments = arguments(Kind::Worker, plan);
            arguments.extend(["--coordinator-url".to_owned(), urls.join(",")]);
            workers.push(Node::start(host(), Kind::Worker, &arguments, &[]).await);
        }
        let installation = Self { network, database, gateways, coordinators, workers, targets };
        installation.ready().await;
        installation
    }

    fn url(&self) -> &str {
        &self.database.database.url
    }

    fn book(&self) -> Arc<Book> {
        Book::new(self.gateways.iter().map(Node::url).collect())
    }

    fn nodes(&mut self) -> impl Iterator<Item = &mut Node> {
        self.gateways.iter_mut().chain(&mut self.coordinators).chain(&mut self.workers)
    }

    /// Waits until every gateway and coordinator is ready, and every worker is listed.
    async fn ready(&self) {
        for node in self.gateways.iter().chain(&self.coordinators) {
            let api = Api::new(&node.url());
            until(&node.process.name, async || api.readyz().await.filter(|status| *status == 200)).await;
        }
        let mut ids: Vec<String> = self.workers.iter().map(|node| node.id.clone()).collect();
        ids.sort_unstable();
        let api = Api::new(&self.gateways[0].url());
        until("every worker is listed", async || (api.worker_ids().await == ids).then_some(())).await;
    }

    /// Waits until everything is over, adds what targets and the database know, and checks all of it.
    async fn finish(mut self, mut history: History) {
        self.network.heal();
        self.ready().await;
        let over = async || {
            let live = "select (select count(*) from tasks) + (select count(*) from event_inbox)";
            (self.database.database.number(live).await == 0).then_some(())
        };
        until("every task ends, and every event is in the log", over).await;
        let api = Api::new(&self.gateways[0].url());
        let idle = async || api.workers().await.iter().all(|worker| worker.held == 0).then_some(());
        until("no worker holds anything", idle).await;
        history.executions = self.targets.executions();
        history.counters = api.stats().await.tasks;
        history.read_database(self.url()).await;
        assert_whole(&history);
        assert!(self.nodes().all(|node| !node.process.has_ended()), "a process has ended");
    }
}

fn arguments(kind: Kind, plan: &Plan) -> Vec<String> {
    let heartbeat = plan.heartbeat_seconds.to_string();
    let join = ["--join-token", JOIN_TOKEN];
    let arguments: Vec<&str> = match kind {
        Kind::Gateway => vec!["gateway", "--allow-anonymous"],
        Kind::Coordinator => {
            let own = ["coordinator", "--events-kept-seconds", "86400", "--worker-networks", "198.18.0.0/15"];
            own.into_iter().chain(["--heartbeat-seconds", &heartbeat]).chain(join).collect()
        }
        Kind::Worker => {
            let own = ["worker", "--allow-targets", "198.18.0.0/15", "--allow-commands", "--labels", "zone=faults"];
            own.into_iter().chain(join).chain(plan.worker_arguments.iter().copied()).collect()
        }
    };
    arguments.into_iter().map(str::to_owned).collect()
}

/// Two parts that talk.
#[derive(Debug, Clone, Copy)]
enum Link {
    ClientGateway,
    GatewayDatabase,
    CoordinatorDatabase,
    /// The coordinator that the worker is at home at.
    WorkerHome,
    WorkerCoordinators,
}

const LINKS: [Link; 5] =
    [Link::ClientGateway, Link::GatewayDatabase, Link::CoordinatorDatabase, Link::WorkerHome, Link::WorkerCoordinators];

/// Which packets are lost.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Those from the first of the two to the second.
    There,
    Back,
    Both,
}

const WAYS: [Way; 3] = [Way::There, Way::Back, Way::Both];

/// What was hit so far, by link.
#[derive(Default)]
struct Storm {
    hits: [Hits; LINKS.len()],
}

impl Storm {
    /// Cuts a link of the next of its parts. Gives back the gateway in it.
    async fn cut(&mut self, installation: &Installation, link: Link, way: Way) -> Option<usize> {
        // Short and long cuts alternate: each part has its turn at both.
        let times = self.hits[link as usize].times as usize;
        let of = |count: usize| (times + times / 2) % count;
        let Installation { gateways, coordinators, workers, database, network, .. } = installation;
        let hub = network.hub();
        let mut gateway = None;
        let (whose, from, to) = match link {
            Link::ClientGateway | Link::GatewayDatabase => {
                let number = of(gateways.len());
                gateway = Some(number);
                let host = &gateways[number].host;
                match link {
                    Link::ClientGateway => (None, &hub, vec![host]),
                    _ => (None, host, vec![&database.host]),
                }
            }
            Link::CoordinatorDatabase => {
                let node = &coordinators[of(coordinators.len())];
                (Some(Whose::Coordinator(&node.id)), &node.host, vec![&database.host])
            }
            Link::WorkerHome | Link::WorkerCoordinators => {
                let node = &workers[of(workers.len())];
                let home = installation.home_of(&node.id).await;
                let all = matches!(link, Link::WorkerCoordinators);
                let cut_off = coordinators.iter().filter(|coordinator| all || coordinator.id == home);
                (Some(Whose::Worker(&node.id)), &node.host, cut_off.map(|node| &node.host).collect())
            }
        };
        let hits = &mut self.hits[link as usize];
        match whose {
            Some(whose) => hits.count(installation.url(), whose).await,
            None => hits.times += 1,
        }
        for to in to {
            if !matches!(way, Way::Back) {
                network.cut(from, to);
            }
            if !matches!(way, Way::There) {
                network.cut(to, from);
            }
        }
        gateway
    }

    /// Cuts these links, all at once, for so long.
    async fn strike(&mut self, installation: &Installation, book: &Book, links: &[Link], way: Way, lasts: Duration) {
        volley(book, &installation.targets, installation.url()).await;
        let end = Instant::now() + lasts;
        let mut gateways = Vec::new();
        for link in links {
            if let Some(gateway) = self.cut(installation, *link, way).await {
                gateways.push((*link, gateway));
            }
        }
        tokio::time::sleep_until(end.into()).await;
        for (link, gateway) in gateways {
            self.hits[link as usize].count_creating(book, gateway);
        }
        installation.network.heal();
    }

    fn is_enough(&self) -> bool {
        let [client, creating, coordinator, home, worker] = self.hits;
        let states = [client.creating, creating.creating, coordinator.waiting, coordinator.picked, coordinator.started];
        states
            .into_iter()
            .chain([home.picked, home.started, worker.picked, worker.started])
            .all(|count| count >= ENOUGH)
    }
}

impl Installation {
    async fn home_of(&self, worker: &str) -> String {
        let mut connection = self.database.database.connect().await;
        let home = sqlx::query_scalar("select home::text from workers where id = $1").bind(worker);
        home.fetch_optional(&mut connection).await.expect("the workers").unwrap_or_default()
    }
}

const MIXED: Plan =
    Plan { gateways: 2, coordinators: 2, workers: 2, heartbeat_seconds: 1.0, worker_arguments: &["--slots", "100"] };
const PACE: Pace = Pace { clients: 8, pause_ms: 50, batch_max: 30, commands: 5 };
const LIVE_MAX: i64 = 100;
const ROUNDS_MAX: u64 = 10;
const SHORT: Duration = Duration::from_secs(1);
/// Past the lease of a worker (3 s) and that of a coordinator (5 s).
const LONG: Duration = Duration::from_secs(7);

#[tokio::test]
#[ignore = "needs root: network namespaces"]
async fn packets_lost_between_any_two_parts_cost_no_task_and_all_goes_on_by_itself() {
    let test = "namespaces::packets_lost_between_any_two_parts_cost_no_task_and_all_goes_on_by_itself";
    let Some(network) = Network::enter(test, MIXED.hosts()) else { return };
    let installation = Installation::start(network, &MIXED).await;
    let book = installation.book();
    let clients = Clients::start(&book, &installation.targets, PACE, 1);
    let held_back = hold_back(&book, installation.url(), LIVE_MAX);
    let mut storm = Storm::default();
    for _ in 0..ROUNDS_MAX {
        for way in WAYS {
            for link in LINKS {
                storm.strike(&installation, &book, &[link], way, SHORT).await;
            }
            storm.strike(&installation, &book, &LINKS, way, LONG).await;
        }
        if storm.is_enough() {
            break;
        }
    }
    for (link, hits) in LINKS.iter().zip(storm.hits) {
        eprintln!("    {:<20} {hits}", format!("{link:?}"));
    }
    drop(held_back);
    let history = clients.stop().await;
    installation.finish(history).await;
    assert!(storm.is_enough(), "the cuts hit too little");
}

/// One coordinator: each worker gets as many tasks as every other.
const CUT_OFF: Plan =
    Plan { gateways: 1, coordinators: 1, workers: 3, heartbeat_seconds: 5.0, worker_arguments: &["--slots", "400"] };

#[tokio::test]
#[ignore = "needs root: network namespaces"]
async fn what_a_worker_held_that_is_cut_off_entirely_runs_elsewhere_within_20_seconds() {
    let test = "namespaces::what_a_worker_held_that_is_cut_off_entirely_runs_elsewhere_within_20_seconds";
    let Some(network) = Network::enter(test, CUT_OFF.hosts()) else { return };
    let mut installation = Installation::start(network, &CUT_OFF).await;
    let book = installation.book();
    let create = async |ms: u64| {
        let spec = Spec::default();
        let task = installation.targets.task(Deed::Http { ms }, &spec);
        assert!(!book.create(0, vec![(spec, task); 3 * (ENOUGH as usize + 50)]).await.is_empty(), "accepted");
    };
    let worker = &mut installation.workers[0];
    let (url, id) = (installation.database.database.url.as_str(), worker.id.clone());
    let hits = async || {
        let mut hits = Hits::default();
        hits.count(url, Whose::Worker(&id)).await;
        hits
    };
    create(15_000).await;
    until("the worker has begun", async || (hits().await.started >= ENOUGH).then_some(())).await;
    // It answers no push while it is stopped: what it is given it has, and has not begun.
    worker.process.pause();
    create(500).await;
    let hits = until("the worker has more", async || {
        Some(hits().await).filter(|hits| hits.started >= ENOUGH && hits.picked >= ENOUGH)
    })
    .await;
    let held = installation.database.held_by(&id).await;
    installation.network.isolate(&worker.host);
    let cut = Stamp::now().monotonic;
    worker.process.resume();
    let runs_elsewhere = async || {
        let runs = installation.targets.executions();
        let began = |task: &Uuid| {
            let later = runs.iter().filter(|run| run.task == *task && run.began.monotonic > cut);
            later.map(|run| run.began.monotonic - cut).reduce(f64::min)
        };
        held.iter().map(began).collect::<Option<Vec<f64>>>()
    };
    let after = until("what it held runs elsewhere", runs_elsewhere).await;
    let (first, last) = (after.iter().copied().fold(f64::MAX, f64::min), after.iter().copied().fold(0.0, f64::max));
    eprintln!("    worker cut off: {hits}; they began elsewhere after {first:.1} to {last:.1} s");
    installation.finish(book.take()).await;
    assert!(last <= 20.0, "{last:.1} s");
}

const SINGLE: Plan =
    Plan { gateways: 1, coordinators: 1, workers: 1, heartbeat_seconds: 5.0, worker_arguments: &["--slots", "40"] };
/// Longer than TCP sends things again at short intervals.
const AWAY: Duration = Duration::from_secs(30);
/// As long as a connection that is silent may last.
const BACK_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test]
#[ignore = "needs root: network namespaces"]
async fn a_long_cut_to_the_database_is_over_for_every_part_within_seconds_of_its_end() {
    let test = "namespaces::a_long_cut_to_the_database_is_over_for_every_part_within_seconds_of_its_end";
    let Some(network) = Network::enter(test, SINGLE.hosts()) else { return };
    let installation = Installation::start(network, &SINGLE).await;
    let book = installation.book();
    let clients = Clients::start(&book, &installation.targets, PACE, 1);
    let held_back = hold_back(&book, installation.url(), LIVE_MAX);
    let Installation { network, database, gateways, coordinators, .. } = &installation;
    for way in WAYS {
        let before = book.accepted();
        until("tasks are accepted", async || (book.accepted() >= before + 100).then_some(())).await;
        for node in gateways.iter().chain(coordinators) {
            if !matches!(way, Way::Back) {
                network.cut(&node.host, &database.host);
            }
            if !matches!(way, Way::There) {
                network.cut(&database.host, &node.host);
            }
        }
        tokio::time::sleep(AWAY).await;
        let (healed, runs) = (Instant::now(), installation.targets.executions().len());
        let accepted = book.accepted();
        network.heal();
        let again = async || (book.accepted() > accepted).then(|| healed.elapsed());
        let accepted_after = until_within(PATIENCE, "tasks are accepted again", again).await;
        let again = async || (installation.targets.executions().len() > runs).then(|| healed.elapsed());
        let ran_after = until_within(PATIENCE, "tasks run again", again).await;
        eprintln!("    {way:?}: accepted again after {accepted_after:.1?}, run again after {ran_after:.1?}");
        assert!(accepted_after <= BACK_WITHIN && ran_after <= BACK_WITHIN, "{accepted_after:?} {ran_after:?}");
    }
    drop(held_back);
    let history = clients.stop().await;
    installation.finish(history).await;
}
