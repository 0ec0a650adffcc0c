//! Connections to a database that has fallen silent, because packets are lost: TCP by itself would wait for a quarter of an hour, and
//! after the way is whole again for as long as it had waited before.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// A connection is over when nothing of the other end was heard for so long, though something should have been.
const SILENT_MAX: Duration = Duration::from_secs(10);
/// A connection on which nothing happens is asked after so long, and so often.
const ASKED_AFTER: Duration = Duration::from_secs(5);
const ASKED_EVERY: Duration = Duration::from_secs(2);

/// Sets these bounds on this process's connections to that port. sqlx makes its sockets itself and does not hand them out, so
/// they are looked for among all that are open; those that have the bounds already get them again.
#[cfg(target_os = "linux")]
pub(crate) fn bound(port: u16) {
    use std::os::fd::BorrowedFd;

    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return };
    for number in open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        // SAFETY: only system calls are made on it that fail on what is closed, or is no socket.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let socket = SockRef::from(&descriptor);
        let leads_there = |peer: socket2::SockAddr| peer.as_socket().is_some_and(|address| address.port() == port);
        if socket.peer_addr().is_ok_and(leads_there) {
            // Without these options a connection is only slower to be given up.
            let keepalive = TcpKeepalive::new().with_time(ASKED_AFTER).with_interval(ASKED_EVERY);
            let _ = socket.set_tcp_keepalive(&keepalive);
            let _ = socket.set_tcp_user_timeout(Some(SILENT_MAX));
        }
    }
}

/// Elsewhere the system's own patience holds.
#[cfg(not(target_os = "linux"))]
pub(crate) fn bound(_port: u16) {
    let _ = (SILENT_MAX, ASKED_AFTER, ASKED_EVERY);
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connections_to_the_port_have_the_bounds_and_others_do_not() {
        let (database, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let connected = [&database, &other].map(|to| TcpStream::connect(to.local_addr().unwrap()).unwrap());
        bound(database.local_addr().unwrap().port());
        let bounds = connected.each_ref().map(|stream| {
            let socket = SockRef::from(stream);
            (socket.keepalive().unwrap(), socket.tcp_user_timeout().unwrap().filter(|limit| !limit.is_zero()))
        });
        assert_eq!(bounds, [(true, Some(SILENT_MAX)), (false, None)]);
    }
}
