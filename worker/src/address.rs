//! The address that coordinators are told.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;

/// How the worker's address is known.
#[derive(Debug, Clone)]
pub(crate) enum Advertised {
    /// It was given, or is the one listened on.
    Fixed(String),
    /// The worker listens on every network: the local address that leads to a coordinator, with this port.
    Towards { port: u16, listening_on: IpAddr },
}

impl Advertised {
    pub fn new(given: Option<String>, listening: SocketAddr) -> Self {
        match given {
            Some(url) => Self::Fixed(url),
            None if listening.ip().is_unspecified() => {
                Self::Towards { port: listening.port(), listening_on: listening.ip() }
            }
            None => Self::Fixed(format!("http://{listening}")),
        }
    }

    /// The address to tell a coordinator.
    ///
    /// # Errors
    /// Fails when no route leads to the coordinator, or its name cannot be resolved yet.
    pub async fn towards(&self, coordinator: &str) -> io::Result<String> {
        let (port, listening_on) = match self {
            Self::Fixed(url) => return Ok(url.clone()),
            Self::Towards { port, listening_on } => (*port, *listening_on),
        };
        let url = url::Url::parse(coordinator).map_err(io::Error::other)?;
        let coordinator_port = url.port_or_known_default().unwrap_or(80);
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for target in tokio::net::lookup_host((host, coordinator_port)).await? {
            if target.is_ipv6() && listening_on.is_ipv4() {
                continue;
            }
            match local_towards(target).await {
                Ok(ip) => return Ok(format!("http://{}", SocketAddr::new(ip, port))),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// The local address that packets to the target carry. Connecting a UDP socket chooses it and sends nothing.
async fn local_towards(target: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match target.is_ipv4() {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(target).await?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_on_all_networks_tells_the_address_that_leads_to_the_coordinator() {
        let advertised = Advertised::new(None, "0.0.0.0:4000".parse().unwrap());
        assert_eq!(advertised.towards("http://127.0.0.1:8080").await.unwrap(), "http://127.0.0.1:4000");
    }

    #[tokio::test]
    async fn a_given_address_and_the_one_listened_on_are_told_as_they_are() {
        let given = Advertised::new(Some("http://w:1".into()), "0.0.0.0:4000".parse().unwrap());
        assert_eq!(given.towards("http://nowhere.invalid").await.unwrap(), "http://w:1");
        let listening = Advertised::new(None, "[::1]:4000".parse().unwrap());
        assert_eq!(listening.towards("http://nowhere.invalid").await.unwrap(), "http://[::1]:4000");
    }
}
