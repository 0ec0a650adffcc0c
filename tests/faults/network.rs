//! A network of hosts: each is a network namespace, and a bridge joins them. Nothing of it touches the machine's own network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::support::command_line;

/// Tells a test that it is in its network: the beginning of its namespaces' names.
const INSIDE: &str = "TASKMASTER_TEST_NETWORK";

/// A host. The first one is the hub, where the test itself is.
#[derive(Debug, Clone)]
pub struct Host {
    namespace: String,
    pub address: IpAddr,
}

impl Host {
    fn new(network: &str, number: u8) -> Self {
        // 198.18.0.0/15 is for tests of networks (RFC 2544).
        Self { namespace: format!("{network}-{number}"), address: Ipv4Addr::new(198, 18, 0, number + 1).into() }
    }

    /// A command on this host. It is replaced by the program, whose process has the same id.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]);
        command
    }

    /// The program of this project on this host.
    pub fn taskmaster(&self, arguments: &[&str]) -> Command {
        let plain = command_line(arguments);
        let mut command = self.command(plain.get_program().to_str().expect("a path in UTF-8"));
        command.args(plain.get_args()).env_clear();
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    }

    /// Listens on this host, in this process.
    pub fn listener(&self, address: SocketAddr) -> TcpListener {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.namespace)).expect("the host");
        // A thread of its own: it stays on the host, and so does the socket.
        let listen = move || {
            // SAFETY: a system call on a descriptor of ours.
            assert_eq!(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }, 0, "on the host");
            TcpListener::bind(address)
        };
        std::thread::spawn(listen).join().expect("no panic").expect("the address")
    }
}

/// The network, as the test inside of it knows it.
pub struct Network {
    name: String,
    hosts: u8,
}

impl Network {
    /// The network, inside of it. Outside, makes one of so many hosts, runs this test there, and passes when it does.
    pub fn enter(test: &str, hosts: u8) -> Option<Self> {
        if let Ok(name) = std::env::var(INSIDE) {
            return Some(Self { name, hosts });
        }
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let made = Made::new(format!("tm{}-{number}", std::process::id()), hosts);
        let program = std::env::current_exe().expect("this program");
        let mut inside = Host::new(&made.name, 0).command(program.to_str().expect("a path in UTF-8"));
        inside.args(["--exact", test, "--include-ignored", "--nocapture"]).env(INSIDE, &made.name);
        // SAFETY: prctl is safe between fork and exec.
        unsafe {
            inside.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let output = inside.stdin(Stdio::null()).output().expect("this test, inside");
        let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        eprint!("{said}");
        assert!(output.status.success() && said.contains("1 passed"), "inside of the network: {}", output.status);
        None
    }

    pub fn hub(&self) -> Host {
        Host::new(&self.name, 0)
    }

    /// The hosts besides the hub.
    pub fn hosts(&self) -> impl Iterator<Item = Host> + use<> {
        let name = self.name.clone();
        (1..=self.hosts).map(move |number| Host::new(&name, number))
    }

    /// From now on the host has this address as well, and the hub knows the way.
    pub fn add_address(&self, host: &Host, address: IpAddr) {
        run(host.command("ip").args(["addr", "add", &address.to_string(), "dev", "eth0"]));
        run(self.hub().command("ip").args(["route", "add", &address.to_string(), "dev", "bridge"]));
    }

    /// From now on no packet of `from` arrives at `to`.
    pub fn cut(&self, from: &Host, to: &Host) {
        run(to.command("iptables").args(["-w", "-A", "INPUT", "-s", &from.address.to_string(), "-j", "DROP"]));
    }

    /// From now on no packet comes to the host or leaves it.
    pub fn isolate(&self, host: &Host) {
        for chain in ["INPUT", "OUTPUT"] {
            run(host.command("iptables").args(["-w", "-A", chain, "-j", "DROP"]));
        }
    }

    /// Every packet arrives again.
    pub fn heal(&self) {
        for host in self.hosts().chain([self.hub()]) {
            run(host.command("iptables").args(["-w", "-F"]));
        }
    }
}

/// The namespaces of a network. Gone, with everything in them, when dropped.
struct Made {
    name: String,
    hosts: u8,
}

impl Made {
    fn new(name: String, hosts: u8) -> Self {
        let made = Self { name, hosts };
        let hub = Host::new(&made.name, 0);
        run(&mut ip(&["netns", "add", &hub.namespace]));
        let in_hub = |arguments: &[&str]| run(&mut ip(&[&["-n", &hub.namespace], arguments].concat()));
        in_hub(&["link", "set", "lo", "up"]);
        in_hub(&["link", "add", "name", "bridge", "type", "bridge"]);
        in_hub(&["addr", "add", &format!("{}/24", hub.address), "dev", "bridge"]);
        in_hub(&["link", "set", "bridge", "up"]);
        for number in 1..=hosts {
            let host = Host::new(&made.name, number);
            let (cable, namespace) = (format!("cable{number}"), host.namespace.as_str());
            run(&mut ip(&["netns", "add", namespace]));
            in_hub(&["link", "add", "name", &cable, "type", "veth", "peer", "name", "eth0", "netns", namespace]);
            in_hub(&["link", "set", &cable, "master", "bridge", "up"]);
            run(&mut ip(&["-n", namespace, "link", "set", "lo", "up"]));
            run(&mut ip(&["-n", namespace, "addr", "add", &format!("{}/24", host.address), "dev", "eth0"]));
            run(&mut ip(&["-n", namespace, "link", "set", "eth0", "up"]));
        }
        made
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for number in 0..=self.hosts {
            let _ = ip(&["netns", "del", &Host::new(&self.name, number).namespace]).stderr(Stdio::null()).status();
        }
    }
}

fn ip(arguments: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(arguments);
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
