//! A fake Patroni: an HTTP server whose answers the test chooses.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Gets the path of the request and the connection for the answer.
type Handler = dyn Fn(&str, &mut TcpStream) + Send + Sync;

pub struct FakePatroni {
    pub address: SocketAddr,
}

impl FakePatroni {
    pub fn new(ip: IpAddr, handler: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let handler: Arc<Handler> = Arc::new(handler);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let handler = Arc::clone(&handler);
                std::thread::spawn(move || answer(stream, &*handler));
            }
        });
        FakePatroni { address }
    }

    /// The Patroni of a healthy primary `n1` at `postgres`, in a cluster with `others`.
    pub fn of_primary(ip: IpAddr, postgres: SocketAddr, others: Vec<(String, SocketAddr)>) -> Self {
        FakePatroni::new(ip, move |path, stream| {
            let own = stream.local_addr().unwrap();
            let body = match path {
                "/cluster" => {
                    let mut members = vec![member("n1", "leader", own, postgres)];
                    let other = |(name, url): &(String, SocketAddr)| {
                        member(name, "replica", *url, SocketAddr::new(url.ip(), 5432))
                    };
                    members.extend(others.iter().map(other));
                    format!("{{\"members\": [{}], \"scope\": \"test\"}}", members.join(", "))
                }
                _ => PRIMARY.to_owned(),
            };
            respond(stream, "200 OK", &body);
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

const PRIMARY: &str = r#"{"state": "running", "role": "primary", "server_version": 150018,
    "xlog": {"location": 50616344}, "timeline": 1, "database_system_identifier": "1",
    "patroni": {"version": "4.1.5", "scope": "test", "name": "n1"}}"#;

fn member(name: &str, role: &str, patroni: SocketAddr, postgres: SocketAddr) -> String {
    let (host, port) = (postgres.ip(), postgres.port());
    format!(
        r#"{{"name": "{name}", "role": "{role}", "state": "running", "timeline": 1,
            "api_url": "http://{patroni}/patroni", "host": "{host}", "port": {port}}}"#
    )
}

/// Sends a complete answer.
pub fn respond(stream: &mut TcpStream, status: &str, body: &str) {
    let head = format!("HTTP/1.0 {status}\r\nContent-Type: application/json\r\n\r\n");
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body.as_bytes());
}

fn answer(mut stream: TcpStream, handler: &Handler) {
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    while lines.next().is_some_and(|line| !line.is_empty()) {}
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    handler(&path, &mut stream);
}
