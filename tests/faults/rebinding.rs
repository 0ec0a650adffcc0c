//! A resolver that lies: it gives a name a public address when it is asked first, and a local one the next time (DNS rebinding).

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use taskmaster_openapi::task::{ErrorCode, Task, TaskStatus};

use super::network::{Host, Network};
use super::support::{Answer, JOIN_TOKEN, Process, Scratch, System, Target, command_line, until};

/// A public address, which is another host's here.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 34);
const PORT: u16 = 8000;
/// A name that has the public address and the local one by turns.
const TURNING: &str = "turning.example.com";
/// A name that has both at once.
const BOTH: &str = "both.example.com";
/// A name that has the local one alone.
const LOCAL: &str = "local.example.com";

/// A DNS server on port 53 of this host. It ends with this process.
struct Liar {
    /// The names whose IPv4 addresses were asked for, in order.
    questions: Arc<Mutex<Vec<String>>>,
}

impl Liar {
    fn start() -> Self {
        let questions: Arc<Mutex<Vec<String>>> = Arc::default();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).expect("port 53 of a network of its own");
        let asked = questions.clone();
        std::thread::spawn(move || {
            let mut packet = [0; 512];
            loop {
                let (length, client) = socket.recv_from(&mut packet).expect("a question");
                let answer = answer(&packet[..length], &asked).expect("a question that a resolver asks");
                socket.send_to(&answer, client).expect("sent");
            }
        });
        Self { questions }
    }

    /// How often the name's address was asked for.
    fn asked(&self, name: &str) -> usize {
        let questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        questions.iter().filter(|asked| *asked == name).count()
    }
}

/// The answer to a question (RFC 1035, 4.1), to be forgotten at once; none where it is no question.
fn answer(packet: &[u8], asked: &Mutex<Vec<String>>) -> Option<Vec<u8>> {
    let (mut labels, mut rest) = (Vec::new(), packet.get(12..)?);
    while let Some((&length @ 1.., after)) = rest.split_first() {
        let (label, after) = after.split_at_checked(length.into())?;
        labels.push(std::str::from_utf8(label).ok()?);
        rest = after;
    }
    let (name, kind_and_class) = (labels.join("."), rest.get(1..5)?);
    // Type A, class IN; of IPv6 addresses there are none.
    let addresses = if kind_and_class == [0, 1, 0, 1] { addresses_of(&name, asked) } else { Vec::new() };
    // The question's id; a response without an error; one question, and so many answers.
    let mut answer = packet[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
    answer.extend(&packet[12..packet.len() - rest.len() + 5]);
    for address in addresses {
        // The name of the question, type A, class IN, 0 s to live, 4 bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

fn addresses_of(name: &str, asked: &Mutex<Vec<String>>) -> Vec<Ipv4Addr> {
    let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    let before = asked.iter().filter(|other| *other == name).count();
    asked.push(name.to_owned());
    match name {
        TURNING if before % 2 == 0 => vec![PUBLIC],
        TURNING | LOCAL => vec![Ipv4Addr::LOCALHOST],
        BOTH => vec![PUBLIC, Ipv4Addr::LOCALHOST],
        _ => Vec::new(),
    }
}

/// A worker here that asks this host's own resolver, whatever the machine's is.
async fn start_worker(system: &System, scratch: &Scratch, arguments: &[&str]) -> Process {
    let (resolver, order) = (scratch.path().join("resolv.conf"), scratch.path().join("nsswitch.conf"));
    std::fs::write(&resolver, "nameserver 127.0.0.1\n").expect("written");
    std::fs::write(&order, "hosts: dns\n").expect("written");
    let fixed = ["worker", "--listen", "127.0.0.1:0", "--join-token", JOIN_TOKEN];
    let plain = command_line(&[&fixed[..], &["--coordinator-url", &system.coordinator_urls[0]], arguments].concat());
    let mut command = std::process::Command::new("unshare");
    // Seen by this process alone, and gone with it.
    let mount =
        "mount --bind \"$1\" /etc/resolv.conf && mount --bind \"$2\" /etc/nsswitch.conf && shift 2 && exec \"$@\"";
    command.args(["--mount", "sh", "-c", mount, "sh"]).args([resolver, order]);
    command.arg(plain.get_program()).args(plain.get_args()).env_clear();
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("TASKMASTER_LOG_FORMAT", "json");
    let mut worker = Process::spawn_command("worker", command);
    worker.logged("joined").await;
    worker
}

async fn call(system: &System, name: &str) -> Task {
    let url = format!("http://{name}:{PORT}/");
    system.api.run(json!({"http": {"method": "GET", "url": url}, "max_attempts": 1})).await
}

fn code(task: &Task) -> Option<&ErrorCode> {
    task.error.as_ref().map(|error| &error.code)
}

/// A server that keeps no connection: each task asks for the name anew.
async fn start_target(listener: TcpListener) -> Target {
    Target::start_on(listener, |_| Answer::ok().header("connection", "close")).await
}

#[tokio::test]
#[ignore = "needs root: network and mount namespaces"]
async fn a_name_that_changes_its_mind_leads_to_the_address_that_was_checked_or_nowhere() {
    let test = "rebinding::a_name_that_changes_its_mind_leads_to_the_address_that_was_checked_or_nowhere";
    let Some(network) = Network::enter(test, 1) else { return };
    let outside: Host = network.hosts().next().expect("a host");
    network.add_address(&outside, PUBLIC.into());
    let public = start_target(outside.listener(SocketAddr::new(IpAddr::from(PUBLIC), PORT))).await;
    let local = start_target(TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).expect("the port")).await;
    let (liar, scratch) = (Liar::start(), Scratch::new());
    let system = System::builder().workers(0).start().await;

    let mut worker = start_worker(&system, &scratch, &[]).await;
    // Asked a second time between the check and the connection, the name would have led to the local server.
    let first = call(&system, TURNING).await;
    assert_eq!(first.status, TaskStatus::Complete, "{first:?}");
    assert_eq!((public.count(), local.count(), liar.asked(TURNING)), (1, 0, 1));
    let second = call(&system, TURNING).await;
    assert_eq!(code(&second), Some(&ErrorCode::TargetRefused), "{second:?}");
    assert_eq!((public.count(), local.count(), liar.asked(TURNING)), (1, 0, 2));
    // Where the public address takes no connection, the local one is no second choice.
    assert_eq!(call(&system, BOTH).await.status, TaskStatus::Complete);
    drop(public);
    let refuses = async || tokio::net::TcpStream::connect((PUBLIC, PORT)).await.is_err().then_some(());
    until("the public address takes no connection", refuses).await;
    let neither = call(&system, BOTH).await;
    assert_eq!(code(&neither), Some(&ErrorCode::Connect), "{neither:?}");
    assert_eq!((local.count(), liar.asked(BOTH)), (0, 2));
    worker.terminate().await;

    // The local server would have answered: a worker that may go there does.
    let _worker = start_worker(&system, &scratch, &["--allow-targets", "loopback"]).await;
    assert_eq!(call(&system, LOCAL).await.status, TaskStatus::Complete);
    assert_eq!(local.count(), 1);
}
