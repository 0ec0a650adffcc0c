//! A PostgreSQL that fails over: three nodes of Patroni under synchronous replication, etcd, and HAProxy before them. Needs root.
//!
//! The settings are those of `docs/failover.md`, but for the times, which are as short as they can be.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::support::{Database, Process, Scratch, is_alive, until};
use super::world::places;

const ETCD: u16 = 2379;
const ETCD_PEERS: u16 = 2380;
const CAREFUL: u16 = 5000;
const CARELESS: u16 = 5001;
/// The first node's; the others' follow.
const POSTGRES: u16 = 5431;
const REST: u16 = 8011;

const NODES: usize = 3;
const PASSWORD: &str = "secret";

/// A machine of its own, as far as a kill goes: Patroni, PostgreSQL and whatever they start are in one PID namespace.
struct Node {
    name: String,
    config: PathBuf,
    process: Option<Process>,
}

impl Node {
    fn start(&mut self) {
        // The shell is the namespace's first process, still root's, so that its end with the test outlasts the change of user.
        let user = "setpriv --reuid=postgres --regid=postgres --clear-groups";
        let script = format!("{user} patroni {} & wait", self.config.display());
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &script]);
        self.process = Some(Process::spawn_command(&self.name, command));
    }

    /// The processes of its namespace.
    fn processes(&self) -> Vec<i32> {
        let process = self.process.as_ref().expect("it runs");
        let namespace = |pid: i32, which: &str| std::fs::read_link(format!("/proc/{pid}/ns/{which}")).ok();
        let own = namespace(process.pid(), "pid_for_children").expect("a namespace");
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| namespace(*pid, "pid").as_ref() == Some(&own)).collect()
    }

    fn signal(&self, number: i32) {
        for pid in self.processes() {
            // One that has ended meanwhile is no error.
            // SAFETY: a system call on plain numbers.
            unsafe { libc::kill(pid, number) };
        }
    }
}

/// What Patroni says of a node.
#[derive(Debug, Clone, Deserialize)]
struct Member {
    role: String,
    state: String,
    timeline: Option<i64>,
}

/// All of it. Killed when dropped.
pub struct Patroni {
    place: IpAddr,
    nodes: Vec<Node>,
    http: reqwest::Client,
    _etcd: Process,
    _haproxy: Process,
    _scratch: Scratch,
}

impl Patroni {
    /// Starts everything, and waits until it is whole.
    pub async fn start() -> Self {
        taskmaster_service::client::install_tls();
        let (place, scratch) = (places(), Scratch::new());
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().expect("a client");
        let etcd = Process::spawn_command("etcd", etcd(place, &scratch));
        let haproxy = Process::spawn_command("haproxy", haproxy(place, &scratch));
        let mut nodes: Vec<Node> = (0..NODES).map(|number| node(place, &scratch, number)).collect();
        nodes.iter_mut().for_each(Node::start);
        let patroni = Self { place, nodes, http, _etcd: etcd, _haproxy: haproxy, _scratch: scratch };
        patroni.whole().await;
        patroni
    }

    /// Where HAProxy leads to the primary: it breaks connections to a server that is none any more.
    pub fn careful(&self) -> SocketAddr {
        SocketAddr::new(self.place, CAREFUL)
    }

    /// Where HAProxy looks rarely, and leaves connections to a server as they are when it is the primary no more.
    pub fn careless(&self) -> SocketAddr {
        SocketAddr::new(self.place, CARELESS)
    }

    pub fn database(&self, at: SocketAddr) -> Database {
        Database { url: format!("postgres://postgres:{PASSWORD}@{at}/postgres") }
    }

    /// A node's database, by the direct way.
    pub fn database_of(&self, node: usize) -> Database {
        self.database(SocketAddr::new(self.place, POSTGRES + node as u16))
    }

    fn rest(&self, node: usize, path: &str) -> String {
        format!("http://{}:{}{path}", self.place, REST + node as u16)
    }

    /// The node that says that it is the primary, if one does.
    pub async fn primary(&self) -> Option<usize> {
        for node in 0..NODES {
            let asked = self.http.get(self.rest(node, "/primary")).timeout(Duration::from_millis(500));
            if asked.send().await.is_ok_and(|answer| answer.status() == 200) {
                return Some(node);
            }
        }
        None
    }

    /// Waits until another node than this one is the primary.
    pub async fn another_primary(&self, old: usize) -> usize {
        until("another primary", async || self.primary().await.filter(|node| *node != old)).await
    }

    async fn members(&self) -> Option<Vec<Member>> {
        let primary = self.primary().await?;
        let mut cluster: Value = self.http.get(self.rest(primary, "/cluster")).send().await.ok()?.json().await.ok()?;
        serde_json::from_value(cluster["members"].take()).ok()
    }

    /// Waits until every node follows the primary, and one does so synchronously.
    pub async fn whole(&self) {
        let whole = async || {
            let members = self.members().await?;
            let leader = members.iter().find(|member| member.role == "leader")?;
            let follows = |member: &Member| member.state == "running" && member.timeline == leader.timeline;
            let synchronous = members.iter().any(|member| member.role == "sync_standby");
            (members.len() == NODES && members.iter().all(follows) && synchronous).then_some(())
        };
        until("every node follows the primary", whole).await;
    }

    /// Kills a node with all that runs on it, and waits until it is gone.
    pub async fn kill9(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        let all = node.processes();
        node.process.take().expect("it runs").kill9();
        let gone = async || all.iter().all(|pid| !is_alive(*pid)).then_some(());
        until("all of a node's processes are gone", gone).await;
    }

    pub fn start_again(&mut self, node: usize) {
        self.nodes[node].start();
    }

    /// Stops a node in its tracks: it keeps its connections, and does nothing.
    pub fn freeze(&self, node: usize) {
        self.nodes[node].signal(libc::SIGSTOP);
    }

    /// Hands the primary's role over, in good order.
    pub async fn switch_over(&self, primary: usize) {
        let asked = json!({"leader": self.nodes[primary].name});
        let answer = self.http.post(self.rest(primary, "/switchover")).json(&asked).send().await.expect("an answer");
        let status = answer.status();
        assert_eq!(status, 200, "{}", answer.text().await.unwrap_or_default());
    }
}

fn etcd(place: IpAddr, scratch: &Scratch) -> Command {
    let (clients, peers) = (format!("http://{place}:{ETCD}"), format!("http://{place}:{ETCD_PEERS}"));
    let mut command = Command::new("etcd");
    command.args(["--name", "one", "--initial-cluster", &format!("one={peers}")]);
    command.arg("--data-dir").arg(scratch.path().join("etcd"));
    command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
    command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
    command
}

fn haproxy(place: IpAddr, scratch: &Scratch) -> Command {
    let servers = |frontend: u16, checked: &str| {
        let server =
            |node: u16| format!("    server node{node} {place}:{} check port {}\n", POSTGRES + node, REST + node);
        let servers: String = (0..NODES as u16).map(server).collect();
        format!(
            "listen at{frontend}\n    bind {place}:{frontend}\n    option httpchk OPTIONS /primary\n{checked}\n{servers}"
        )
    };
    let careful = servers(CAREFUL, "    default-server inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions");
    let careless = servers(CARELESS, "    default-server inter 3s fall 4 rise 1");
    let defaults = "defaults\n    mode tcp\n    timeout connect 1s\n    timeout check 1s\n    timeout client 30m\n    timeout server 30m\n";
    let file = scratch.path().join("haproxy.cfg");
    std::fs::write(&file, format!("{defaults}{careful}{careless}")).expect("written");
    let mut command = Command::new("/usr/sbin/haproxy");
    command.arg("-db").arg("-f").arg(file);
    command
}

fn node(place: IpAddr, scratch: &Scratch, number: usize) -> Node {
    let name = format!("node{number}");
    let directory = scratch.path().join(&name);
    std::fs::create_dir(&directory).expect("a directory");
    let owned = Command::new("chown").arg("postgres:").arg(&directory).status().expect("chown");
    assert!(owned.success(), "a user postgres");
    let config = scratch.path().join(format!("{name}.json"));
    // JSON is YAML.
    std::fs::write(&config, settings(place, &name, &directory, number as u16).to_string()).expect("written");
    Node { name, config, process: None }
}

fn settings(place: IpAddr, name: &str, directory: &std::path::Path, number: u16) -> Value {
    let (postgres, rest) = (format!("{place}:{}", POSTGRES + number), format!("{place}:{}", REST + number));
    let shared = json!({
        "ttl": 8, "loop_wait": 1, "retry_timeout": 3, "maximum_lag_on_failover": 1_048_576,
        "synchronous_mode": true, "synchronous_mode_strict": true,
        "postgresql": {
            "use_pg_rewind": true,
            "parameters": {"max_connections": 100, "shared_buffers": "64MB", "wal_log_hints": "on", "fsync": "on"}
        }
    });
    let login = |name: &str| json!({"username": name, "password": PASSWORD});
    json!({
        "scope": "taskmaster", "name": name, "etcd3": {"host": format!("{place}:{ETCD}")},
        "restapi": {"listen": rest, "connect_address": rest},
        "bootstrap": {"dcs": shared, "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}]},
        "postgresql": {
            "listen": postgres, "connect_address": postgres, "data_dir": directory.join("data"), "bin_dir": programs(),
            "pgpass": directory.join("pgpass"), "parameters": {"unix_socket_directories": directory},
            "pg_hba": ["local all all trust", "host all all 127.0.0.0/8 scram-sha-256",
                       "host replication all 127.0.0.0/8 scram-sha-256"],
            "authentication": {"superuser": login("postgres"), "replication": login("replicator")}
        }
    })
}

/// The newest PostgreSQL where Debian puts it.
fn programs() -> PathBuf {
    let installed = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL as Debian installs it").flatten();
    let newest = installed.map(|entry| entry.path()).max_by_key(|path| path.file_name()?.to_str()?.parse::<u32>().ok());
    newest.expect("a version").join("bin")
}
