//! The login of the tether: connect, TLS, startup packet, authentication.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsteer_core::claim::Failure;
use pgsteer_core::names::Endpoint;
use pgsteer_core::pace::RUN_ON;
use pgsteer_core::settings::{CheckConfig, RequireAuth, SslMode, Verify};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::authentication::Authentication;
use super::session::Session;
use super::wire::{Connection, END_OF_LINE, http, is_http, nonsense};
use crate::secret::Secret;
use crate::sources::dial::{self, Transport};
use crate::tls::{self, Trust};

/// The positive answer to an SSLRequest, which is one byte (PostgreSQL documentation, "SSL Session
/// Encryption").
const TLS_OFFERED: u8 = b'S';
const TLS_NOT_OFFERED: u8 = b'N';

/// The parameters of a login, read and checked.
#[derive(Debug)]
pub struct Login {
    user: String,
    dbname: String,
    password: Option<Secret>,
    require_auth: RequireAuth,
    encryption: Encryption,
    /// The time limit for a connection. An answer that takes longer is late.
    pub limit: Duration,
}

#[derive(Debug)]
enum Encryption {
    Never,
    /// TLS if the server offers it and the handshake succeeds.
    Preferred(Arc<ClientConfig>),
    Always(Arc<ClientConfig>),
}

/// A failed login.
#[derive(Debug)]
pub struct Missed {
    /// The reason.
    pub failure: Failure,
    /// The server had sent an answer by then, other than that it accepts no connections.
    pub was_answered: bool,
}

impl Missed {
    /// Returns true if the server answered, but did not accept or refuse the login in time.
    pub fn is_put_off(&self) -> bool {
        self.was_answered && matches!(self.failure, Failure::Timeout { .. })
    }
}

/// A connection on which the server has sent its first answer to the startup packet.
struct Knocked {
    asked: Instant,
    connection: Connection,
    answer: Message,
}

/// A successful login.
pub struct LoggedIn {
    /// When the login was started.
    pub asked: Instant,
    /// The session.
    pub session: Session,
}

impl Login {
    /// Reads the files that `check` names.
    ///
    /// # Errors
    /// A file that cannot be used; the message names it and shows no secret.
    pub fn read(check: &CheckConfig) -> anyhow::Result<Login> {
        let config = |verify| {
            let trust = Trust { verify, ca_file: check.ca_file.as_deref() };
            tls::client_config(trust, None)
        };
        let encryption = match check.sslmode {
            SslMode::Disable => Encryption::Never,
            SslMode::Prefer => Encryption::Preferred(config(Verify::None)?),
            SslMode::Require => Encryption::Always(config(Verify::None)?),
            SslMode::VerifyCa => Encryption::Always(config(Verify::Ca)?),
            SslMode::VerifyFull => Encryption::Always(config(Verify::Full)?),
        };
        Ok(Login {
            user: check.user.clone(),
            dbname: check.dbname.clone(),
            password: match &check.password_file {
                Some(file) => Some(Secret::read(file)?),
                None => None,
            },
            require_auth: check.require_auth.clone(),
            encryption,
            limit: check.timeout,
        })
    }

    /// A login for a probe that is not meant to authenticate. It shows what `pg_isready` would
    /// show.
    pub fn anonymous(limit: Duration) -> Login {
        Login {
            user: "pgsteer".to_owned(),
            dbname: "postgres".to_owned(),
            password: None,
            require_auth: RequireAuth::usual(SslMode::Disable),
            encryption: Encryption::Never,
            limit,
        }
    }

    /// A login for tests against fake servers.
    #[cfg(test)]
    pub fn fake(password: Option<&str>, limit: Duration) -> Login {
        Login {
            user: "pgcheck".to_owned(),
            dbname: "postgres".to_owned(),
            password: password.map(Secret::from),
            require_auth: RequireAuth::usual(SslMode::Disable),
            encryption: Encryption::Never,
            limit,
        }
    }

    /// The same with other authentication methods.
    #[cfg(test)]
    pub fn requiring(self, require_auth: &str) -> Login {
        Login {
            require_auth: pgsteer_config::sections::check::require_auth(require_auth).unwrap(),
            ..self
        }
    }

    /// The time limit of an attempt whose late answer counts.
    pub fn late_limit(&self) -> Duration {
        RUN_ON.max(self.limit)
    }

    /// Logs in within `limit` at the first of `addresses` that accepts a connection.
    pub async fn log_in(
        &self,
        postgres: &Endpoint,
        addresses: &[IpAddr],
        limit: Duration,
    ) -> Result<LoggedIn, Missed> {
        let within = Within::new(postgres, limit);
        let missed = |was_answered| move |failure| Missed { failure, was_answered };
        let knocking = self.knocked(postgres, addresses, &within);
        let knocked = within.run(knocking).await.map_err(missed(false))?;
        let entering = self.enter(knocked);
        within.run(entering).await.map_err(missed(true))
    }

    /// Same as [`Login::log_in`], for a PgBouncer, which sends no answer while it has no session to
    /// its server. After half of the limit this checks whether the pooler itself answers.
    pub async fn log_in_or_look(
        &self,
        postgres: &Endpoint,
        addresses: &[IpAddr],
        limit: Duration,
    ) -> Result<LoggedIn, Missed> {
        let mut logging_in = pin!(self.log_in(postgres, addresses, limit));
        let half = tokio::time::timeout(limit / 2, &mut logging_in);
        if let Ok(outcome) = half.await {
            return outcome;
        }
        let (outcome, looked) = tokio::join!(logging_in, self.look(postgres, addresses));
        let is_there = looked.is_ok();
        outcome.map_err(|Missed { failure, was_answered }| Missed {
            failure,
            was_answered: was_answered || is_there,
        })
    }

    /// Checks with a request for TLS whether a server listens. Every server that speaks
    /// PostgreSQL's protocol answers that request at once, and a pooler answers it without its
    /// server.
    pub async fn look(&self, postgres: &Endpoint, addresses: &[IpAddr]) -> Result<(), Failure> {
        let within = Within::new(postgres, self.limit);
        let Within { peer, .. } = &within;
        let looking = async {
            let mut stream = dial::connect(addresses, postgres.port(), peer, self.limit).await?;
            ask_for_tls(&mut stream, peer, within.almost_over()).await
        };
        within.run(looking).await.map(drop)
    }

    /// Checks within `limit` whether a server accepts connections, as `pg_isready` does. A request
    /// for authentication means yes, and so does any error except that the server is starting up or
    /// shutting down. The connection is never authenticated.
    pub async fn knock(
        &self,
        postgres: &Endpoint,
        addresses: &[IpAddr],
        limit: Duration,
    ) -> Result<(), Failure> {
        let within = Within::new(postgres, limit);
        within.run(self.knocked(postgres, addresses, &within)).await.map(drop)
    }

    async fn knocked(
        &self,
        postgres: &Endpoint,
        addresses: &[IpAddr],
        within: &Within,
    ) -> Result<Knocked, Failure> {
        let Within { peer, .. } = within;
        let dialling = || dial::connect(addresses, postgres.port(), peer, self.limit);
        let transport =
            match (self.encrypt(dialling().await?, postgres, within).await, &self.encryption) {
                // As libpq does: if TLS is only preferred and fails, connect without TLS.
                (Err(Failure::Tls(_)), Encryption::Preferred(_)) => Box::new(dialling().await?),
                (transport, _) => transport?,
            };
        let mut connection = Connection::new(transport, peer.clone());
        let asked = Instant::now();
        let parameters = [
            ("user", self.user.as_str()),
            ("database", self.dbname.as_str()),
            ("application_name", "pgsteer"),
            ("client_encoding", "UTF8"),
        ];
        connection.send(|buf| frontend::startup_message(parameters, buf)).await?;
        let answer = connection.receive_or_end_line(within.almost_over()).await?;
        if let Message::ErrorResponse(body) = &answer {
            let failure = connection.refused(body);
            if matches!(failure, Failure::Unavailable { .. }) {
                return Err(failure);
            }
        }
        Ok(Knocked { asked, connection, answer })
    }

    async fn enter(&self, knocked: Knocked) -> Result<LoggedIn, Failure> {
        let Knocked { asked, mut connection, answer } = knocked;
        let Login { user, password, require_auth, .. } = self;
        let authentication = Authentication { user, password: password.as_ref(), require_auth };
        let authenticated = authentication.run(&mut connection, answer).await;
        authenticated.map_err(|failure| match failure {
            Failure::LoginDeclined(why) => {
                Failure::LoginDeclined(Arc::from(format!("{}: {why}", connection.peer())))
            }
            other => other,
        })?;
        let reported = welcome(&mut connection).await?;
        Ok(LoggedIn { asked, session: Session::new(connection, &reported) })
    }

    async fn encrypt(
        &self,
        mut stream: TcpStream,
        postgres: &Endpoint,
        within: &Within,
    ) -> Result<Box<dyn Transport>, Failure> {
        let Within { peer, .. } = within;
        let (config, is_needed) = match &self.encryption {
            Encryption::Never => return Ok(Box::new(stream)),
            Encryption::Preferred(config) => (config, false),
            Encryption::Always(config) => (config, true),
        };
        let refused = |why: &str| Failure::Tls(Arc::from(format!("{peer}: {why}")));
        // Reads exactly the one byte of the answer. Unencrypted bytes after it would have been
        // injected, and they make the handshake fail.
        match ask_for_tls(&mut stream, peer, within.almost_over()).await? {
            TLS_OFFERED => {}
            TLS_NOT_OFFERED if is_needed => return Err(refused("the server offers none")),
            TLS_NOT_OFFERED => return Ok(Box::new(stream)),
            other if is_http(&[other]) => return Err(http(peer)),
            other => {
                let how = format!("`{}` to a request for TLS", other.escape_ascii());
                return Err(nonsense(peer, &how));
            }
        }
        let name = tls::server_name(postgres.host()).map_err(|err| refused(&err.to_string()))?;
        let connecting = TlsConnector::from(config.clone()).connect(name, stream);
        match connecting.await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(err) => Err(match dial::failure(&err, peer) {
                tls @ Failure::Tls(_) => tls,
                // Every other error is a failed handshake.
                _ => refused(&format!("the handshake failed: {err}")),
            }),
        }
    }
}

/// The time limit of an attempt.
struct Within {
    peer: Arc<str>,
    began: tokio::time::Instant,
    limit: Duration,
}

impl Within {
    /// An attempt that begins now.
    fn new(postgres: &Endpoint, limit: Duration) -> Within {
        let peer = Arc::from(postgres.to_string());
        Within { peer, began: tokio::time::Instant::now(), limit }
    }

    /// The time when nine tenths of the limit are over.
    fn almost_over(&self) -> tokio::time::Instant {
        self.began + self.limit * 9 / 10
    }

    async fn run<T>(&self, step: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        match tokio::time::timeout_at(self.began + self.limit, step).await {
            Ok(outcome) => outcome,
            Err(_) => Err(dial::timed_out(&self.peer, self.limit)),
        }
    }
}

/// Requests TLS. If no answer has arrived by `late`, sends the end of a line, because an HTTP
/// server waits for it before it answers. PostgreSQL would not have completed the login in time
/// anyway.
async fn ask_for_tls(
    stream: &mut TcpStream,
    peer: &Arc<str>,
    late: tokio::time::Instant,
) -> Result<u8, Failure> {
    let mut request = bytes::BytesMut::new();
    frontend::ssl_request(&mut request);
    let asking = async {
        stream.write_all(&request).await?;
        if let Ok(answer) = tokio::time::timeout_at(late, stream.read_u8()).await {
            return answer;
        }
        stream.write_all(END_OF_LINE).await?;
        stream.read_u8().await
    };
    asking.await.map_err(|err| dial::failure(&err, peer))
}

/// Reads from AuthenticationOk to the first ReadyForQuery, and returns the reported parameters.
async fn welcome(connection: &mut Connection) -> Result<BTreeMap<String, String>, Failure> {
    /// The maximum number of parameters that are kept; PostgreSQL 18 reports 15.
    const REPORTED_MAX: usize = 100;
    let mut reported = BTreeMap::new();
    loop {
        match connection.receive().await? {
            Message::ReadyForQuery(_) => return Ok(reported),
            Message::ParameterStatus(body) if reported.len() < REPORTED_MAX => {
                if let (Ok(name), Ok(value)) = (body.name(), body.value()) {
                    reported.insert(name.to_owned(), value.to_owned());
                }
            }
            Message::BackendKeyData(_) | Message::NoticeResponse(_) => {}
            Message::ErrorResponse(body) => return Err(connection.refused(&body)),
            _ => return Err(connection.nonsense("an unexpected message at the end of the login")),
        }
    }
}
