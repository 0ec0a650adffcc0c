//! A gateway that serves HTTPS itself: with curl, with the program's own clients, and while its certificate is renewed.

use std::path::PathBuf;
use std::process::{Command, Output};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{JOIN_TOKEN, Process, Scratch, System, command_line, until};

/// Files of one authority and one certificate of it.
struct Files {
    authority: String,
    certificate: String,
    key: String,
}

impl Files {
    /// Files in the directory, whose names begin so. The certificate is for `tasks.test` and `localhost`.
    fn make(scratch: &Scratch, prefix: &str) -> Self {
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        // A certificate whose name is its issuer's would be taken for one that signs itself.
        authority.distinguished_name.push(DnType::CommonName, format!("the authority of a test, {prefix}"));
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().unwrap();
        let names = CertificateParams::new(vec!["tasks.test".into(), "localhost".into()]).unwrap();
        let certificate = names.signed_by(&key, &issuer).unwrap();
        let write = |name: &str, pem: String| {
            let path: PathBuf = scratch.path().join(format!("{prefix}-{name}.pem"));
            std::fs::write(&path, pem).unwrap();
            path.to_str().unwrap().to_owned()
        };
        Self {
            authority: write("authority", authority_pem),
            certificate: write("certificate", certificate.pem()),
            key: write("key", key.serialize_pem()),
        }
    }
}

/// curl, which believes this authority only.
fn curl(authority: &str, port: &str, path: &str) -> Output {
    let mut curl = Command::new("curl");
    curl.args(["-sSi", "--max-time", "20", "--noproxy", "*", "--cacert", authority]);
    curl.args(["--resolve", &format!("tasks.test:{port}:127.0.0.1"), &format!("https://tasks.test:{port}{path}")]);
    curl.output().expect("curl")
}

fn health(arguments: &[&str]) -> Output {
    command_line(&[&["health"], arguments].concat()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_serves_https_to_curl_to_health_and_to_workers_and_takes_over_a_renewed_certificate() {
    let mut system = System::builder().workers(0).start().await;
    let scratch = Scratch::new();
    let (first, second) = (Files::make(&scratch, "first"), Files::make(&scratch, "second"));
    let args = ["gateway", "--listen", "127.0.0.1:0", "--tls-certificate", &first.certificate, "--tls-key", &first.key];
    let environment = [("DATABASE_URL", system.database.url.as_str()), ("TASKMASTER_DATABASE_POOL_MAX", "4")];
    let mut gateway = Process::spawn("gateway with TLS", &args, &environment);
    let address = gateway.logged("gateway").await["address"].as_str().unwrap().to_owned();
    let port = address.rsplit(':').next().unwrap();

    let answer = curl(&first.authority, port, "/livez");
    let (head, body) = (text(&answer.stdout).to_lowercase(), text(&answer.stdout));
    assert!(head.starts_with("http/1.1 200 ") && body.ends_with("ok\n"), "{body} {}", text(&answer.stderr));
    assert!(head.contains("strict-transport-security: max-age=31536000\r\n"), "{head}");
    assert!(!curl(&second.authority, port, "/livez").status.success(), "of another authority");

    // The program's own clients: by name, and by an address that the name does not lead to.
    let local = format!("https://localhost:{port}/readyz");
    until("the gateway is ready", async || {
        health(&["--tls-ca", &first.authority, &local]).status.success().then_some(())
    })
    .await;
    let named = format!("https://tasks.test:{port}/livez");
    let by_address = health(&["--tls-ca", &first.authority, "--address", "127.0.0.1", &named]);
    assert!(by_address.status.success(), "{}", text(&by_address.stderr));
    let stranger = health(&[&local]);
    assert_eq!((stranger.status.code(), text(&stranger.stderr).lines().count()), (Some(1), 1), "{stranger:?}");
    let url = format!("https://localhost:{port}");
    let args = ["worker", "--join-token", JOIN_TOKEN, "--coordinator-url", &url, "--tls-ca", &first.authority];
    system.workers.push(Process::spawn("worker over TLS", &args, &[]));
    system.workers_listed(1).await;

    // What is no TLS gets no answer.
    let mut plain = TcpStream::connect(&address).await.unwrap();
    plain.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");

    // Renewed, one file after the other, as programs that renew certificates do.
    std::fs::copy(&second.certificate, &first.certificate).unwrap();
    std::fs::copy(&second.key, &first.key).unwrap();
    until("the renewed certificate is used", async || {
        curl(&second.authority, port, "/livez").status.success().then_some(())
    })
    .await;
    assert!(!curl(&first.authority, port, "/livez").status.success(), "and the old one is not");
    // What cannot be used changes nothing.
    std::fs::write(&first.key, "nonsense").unwrap();
    gateway.logged("the certificate has changed and cannot be used; the one before stays").await;
    assert!(curl(&second.authority, port, "/livez").status.success());
}

#[test]
fn files_that_cannot_be_used_end_the_gateway_with_one_line() {
    let scratch = Scratch::new();
    let (one, other) = (Files::make(&scratch, "one"), Files::make(&scratch, "other"));
    let missing = scratch.path().join("missing.pem").to_str().unwrap().to_owned();
    for (certificate, key, said) in [
        (&missing, &one.key, "missing.pem: No such file"),
        (&one.certificate, &missing, "missing.pem: No such file"),
        (&one.key, &one.key, "one-key.pem has no certificate in it"),
        (&one.certificate, &one.certificate, "one-certificate.pem has no private key in it"),
        (&one.certificate, &other.key, "is not the one of the certificate in"),
        (&one.certificate, &String::new(), "--tls-certificate and --tls-key belong together"),
    ] {
        let mut gateway = command_line(&["gateway", "--listen", "127.0.0.1:0", "--tls-certificate", certificate]);
        gateway.env("TASKMASTER_TLS_KEY", key).env("TASKMASTER_LOG", "error");
        let ended = gateway.env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none").output().unwrap();
        let lines = text(&ended.stderr);
        assert_eq!((ended.status.code(), lines.lines().count()), (Some(1), 1), "{lines}");
        assert!(lines.starts_with("taskmaster: ") && lines.contains(said), "{lines}");
    }
}
