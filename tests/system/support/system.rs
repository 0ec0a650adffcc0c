//! Gateways, coordinators and workers, each a process.

use super::api::Api;
use super::database::Database;
use super::process::Process;
use super::until;

/// What lets the workers of all tests in.
pub const JOIN_TOKEN: &str = "a-join-token-of-the-tests";

/// Connections of one process: the shared cluster has 100 for all tests that run at once.
const POOL_MAX: &str = "6";

/// What to start.
pub struct SystemBuilder {
    gateways: usize,
    coordinators: usize,
    workers: usize,
    gateway_args: Vec<String>,
    coordinator_args: Vec<String>,
    worker_args: Vec<String>,
    pool_max: String,
    database: Option<Database>,
}

/// A running installation. Everything in it is killed when it is dropped.
pub struct System {
    /// Speaks to the first gateway.
    pub api: Api,
    pub gateways: Vec<Process>,
    pub coordinators: Vec<Process>,
    pub workers: Vec<Process>,
    /// Where the coordinators are.
    pub coordinator_urls: Vec<String>,
    pub database: Database,
    builder: SystemBuilder,
}

impl SystemBuilder {
    pub fn gateways(self, gateways: usize) -> Self {
        Self { gateways, ..self }
    }

    pub fn coordinators(self, coordinators: usize) -> Self {
        Self { coordinators, ..self }
    }

    pub fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    /// Further arguments of every gateway.
    pub fn gateway_args(self, args: &[&str]) -> Self {
        Self { gateway_args: owned(args), ..self }
    }

    /// Further arguments of every coordinator.
    pub fn coordinator_args(self, args: &[&str]) -> Self {
        Self { coordinator_args: owned(args), ..self }
    }

    /// Further arguments of every worker. They allow commands and loopback targets already.
    pub fn worker_args(self, args: &[&str]) -> Self {
        Self { worker_args: owned(args), ..self }
    }

    /// Connections of each process to the database at most; 6 when left out.
    pub fn pool_max(self, connections: usize) -> Self {
        Self { pool_max: connections.to_string(), ..self }
    }

    /// Uses this database, which has the schema; a new one when left out.
    pub fn database(self, database: Database) -> Self {
        Self { database: Some(database), ..self }
    }

    /// Starts everything, and waits until all of it is ready and every worker is listed.
    pub async fn start(mut self) -> System {
        let database = match self.database.take() {
            Some(database) => database,
            None => Database::new().await,
        };
        let (gateways, coordinators, workers) = (self.gateways, self.coordinators, self.workers);
        let mut system = System {
            api: Api::new("http://127.0.0.1:1"),
            gateways: Vec::new(),
            coordinators: Vec::new(),
            workers: Vec::new(),
            coordinator_urls: Vec::new(),
            database,
            builder: self,
        };
        for _ in 0..gateways {
            system.add_gateway().await;
        }
        for _ in 0..coordinators {
            system.add_coordinator().await;
        }
        for _ in 0..workers {
            system.add_worker(&[]).await;
        }
        system.ready().await;
        system.workers_listed(workers).await;
        system
    }
}

impl System {
    /// One gateway, one coordinator, one worker, unless told otherwise.
    pub fn builder() -> SystemBuilder {
        SystemBuilder {
            gateways: 1,
            coordinators: 1,
            workers: 1,
            gateway_args: Vec::new(),
            coordinator_args: Vec::new(),
            worker_args: Vec::new(),
            pool_max: POOL_MAX.to_owned(),
            database: None,
        }
    }

    fn store_args(&self) -> [(&str, &str); 2] {
        [("DATABASE_URL", &self.database.url), ("TASKMASTER_DATABASE_POOL_MAX", &self.builder.pool_max)]
    }

    /// Starts one more gateway, and waits until it listens. Gives back its URL.
    pub async fn add_gateway(&mut self) -> String {
        let name = format!("gateway {}", self.gateways.len());
        let args = joined(&["gateway", "--listen", "127.0.0.1:0"], &self.builder.gateway_args, &[]);
        let mut process = Process::spawn(&name, &args, &self.store_args());
        let url = format!("http://{}", text(&process.logged("gateway").await["address"]));
        if self.gateways.is_empty() {
            self.api = Api::new(&url);
        }
        self.gateways.push(process);
        url
    }

    /// Starts one more coordinator, and waits until it listens. Gives back its URL.
    pub async fn add_coordinator(&mut self) -> String {
        let name = format!("coordinator {}", self.coordinators.len());
        let fixed = ["coordinator", "--listen", "127.0.0.1:0", "--join-token", JOIN_TOKEN];
        let args = joined(&fixed, &self.builder.coordinator_args, &[]);
        let mut process = Process::spawn(&name, &args, &self.store_args());
        let url = text(&process.logged("coordinator").await["address"]);
        self.coordinators.push(process);
        self.coordinator_urls.push(url.clone());
        url
    }

    /// Starts one more worker, and waits until it listens: with the arguments of all workers and these. Gives back its id.
    /// It turns to the coordinators, each worker to another one first, and to the gateway when none of them answers.
    pub async fn add_worker(&mut self, args: &[&str]) -> String {
        self.start_worker(&[&["--allow-commands"], args].concat()).await
    }

    /// As [`Self::add_worker`], one that runs no commands.
    pub async fn add_http_worker(&mut self) -> String {
        self.start_worker(&[]).await
    }

    async fn start_worker(&mut self, args: &[&str]) -> String {
        let number = self.workers.len();
        let mut urls = self.coordinator_urls.clone();
        let turn = number % urls.len().max(1);
        urls.rotate_left(turn);
        urls.push(self.api.url.clone());
        let urls = urls.join(",");
        let fixed = ["worker", "--join-token", JOIN_TOKEN, "--allow-targets", "loopback", "--coordinator-url", &urls];
        let args = joined(&fixed, &self.builder.worker_args, args);
        let mut process = Process::spawn(&format!("worker {number}"), &args, &[]);
        let id = text(&process.logged("worker listens").await["worker_id"]);
        self.workers.push(process);
        id
    }

    /// Waits until every gateway and coordinator is ready.
    pub async fn ready(&self) {
        for url in self.coordinator_urls.iter().chain([&self.api.url]) {
            let api = Api::new(url);
            until(&format!("{url}/readyz"), async || api.readyz().await.filter(|status| *status == 200)).await;
        }
    }

    /// Waits until so many workers are listed. Gives back their ids.
    pub async fn workers_listed(&self, count: usize) -> Vec<String> {
        let ids = async || Some(self.api.worker_ids().await).filter(|ids| ids.len() == count);
        until(&format!("{count} workers are listed"), ids).await
    }

    /// The id that a worker of ours logged at its start.
    pub async fn worker_id(&mut self, number: usize) -> String {
        text(&self.workers[number].logged("worker listens").await["worker_id"])
    }

    /// The worker of ours with this id, by its place in `workers`.
    pub async fn worker_with_id(&mut self, id: &str) -> usize {
        for number in 0..self.workers.len() {
            if self.worker_id(number).await == id {
                return number;
            }
        }
        panic!("{id} is not a worker of this system");
    }

    /// Where a worker of ours listens.
    pub async fn worker_url(&mut self, number: usize) -> String {
        format!("http://{}", text(&self.workers[number].logged("worker listens").await["address"]))
    }
}

fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

fn joined<'a>(fixed: &[&'a str], common: &'a [String], own: &[&'a str]) -> Vec<&'a str> {
    fixed.iter().copied().chain(common.iter().map(String::as_str)).chain(own.iter().copied()).collect()
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().expect("a text in the log line").to_owned()
}
