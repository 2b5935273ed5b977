//! The authentication of the check login, by the methods that `require_auth` accepts.
//!
//! A server may request the password in clear or as a hash. It gets neither unless the
//! configuration allows the method or the server's certificate is verified: every host on the path
//! could read it.

use std::io;
use std::sync::Arc;

use fallible_iterator::FallibleIterator;
use pgsteer_core::claim::Failure;
use pgsteer_core::settings::{AuthMethod, RequireAuth};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::wire::Connection;
use crate::secret::Secret;

/// The maximum SCRAM iterations that a server may request. PostgreSQL's default is 4,096; the
/// setting `scram_iterations` changes it (16 and later). Each 100,000 take about 30 ms of a core.
const SCRAM_ITERATIONS_MAX: u32 = 100_000;

/// Limits how many passwords are hashed at once. Each is hashed on a thread of its own for blocking
/// work.
static HASHING: Semaphore = Semaphore::const_new(2);

/// The credentials of the check login.
pub struct Authentication<'a> {
    /// The user.
    pub user: &'a str,
    /// The password, if one is configured.
    pub password: Option<&'a Secret>,
    /// The accepted methods.
    pub require_auth: &'a RequireAuth,
}

impl Authentication<'_> {
    /// Authenticates, from the server's first answer to AuthenticationOk.
    ///
    /// # Errors
    /// The server refuses the login, violates the protocol, or requests a method that is not
    /// accepted.
    pub async fn run(
        self,
        connection: &mut Connection,
        mut answer: Message,
    ) -> Result<(), Failure> {
        let mut was_asked = false;
        loop {
            match answer {
                Message::AuthenticationOk if was_asked => return Ok(()),
                Message::AuthenticationOk => {
                    return self.accept(AuthMethod::None, "asks for no authentication");
                }
                Message::AuthenticationCleartextPassword => {
                    self.accept(AuthMethod::Password, "asks for the password in clear")?;
                    let password = self.password()?.expose().as_bytes();
                    connection.send(|buf| frontend::password_message(password, buf)).await?;
                }
                Message::AuthenticationMd5Password(body) => {
                    self.accept(AuthMethod::Md5, "asks for an MD5 hash of the password")?;
                    let password = self.password()?.expose().as_bytes();
                    let hash = md5_hash(self.user.as_bytes(), password, body.salt());
                    connection.send(|buf| frontend::password_message(hash.as_bytes(), buf)).await?;
                }
                Message::AuthenticationSasl(body) => self.scram(connection, &body).await?,
                Message::ErrorResponse(body) => return Err(connection.refused(&body)),
                Message::NoticeResponse(_) => {
                    answer = connection.receive().await?;
                    continue;
                }
                Message::AuthenticationGss
                | Message::AuthenticationKerberosV5
                | Message::AuthenticationScmCredential
                | Message::AuthenticationSspi => return Err(unknown_method()),
                _ => return Err(connection.nonsense("no authentication message in the login")),
            }
            was_asked = true;
            answer = connection.receive().await?;
        }
    }

    /// Runs SCRAM-SHA-256 (RFC 7677) without channel binding. The server's final proof shows that
    /// it has the password too, even if a proxy relays the bytes.
    async fn scram(
        &self,
        connection: &mut Connection,
        offered: &AuthenticationSaslBody,
    ) -> Result<(), Failure> {
        self.accept(AuthMethod::ScramSha256, "asks for SCRAM-SHA-256")?;
        let mut mechanisms = offered.mechanisms();
        if !matches!(mechanisms.any(|name| Ok(name == SCRAM_SHA_256)), Ok(true)) {
            return Err(unknown_method());
        }
        let password = self.password()?.expose().as_bytes();
        let mut scram = ScramSha256::new(password, ChannelBinding::unsupported());
        connection
            .send(|buf| frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), buf))
            .await?;
        scram = match connection.receive().await? {
            Message::AuthenticationSaslContinue(body) => {
                let challenge = body.data().to_vec();
                check_iterations(&challenge)?;
                hashed(scram, challenge)
                    .await
                    .map_err(|err| connection.nonsense(&err.to_string()))?
            }
            Message::ErrorResponse(body) => return Err(connection.refused(&body)),
            _ => return Err(connection.nonsense("SCRAM without the server's first message")),
        };
        connection.send(|buf| frontend::sasl_response(scram.message(), buf)).await?;
        match connection.receive().await? {
            Message::AuthenticationSaslFinal(body) => scram
                .finish(body.data())
                .map_err(|_| connection.nonsense("its SCRAM signature is wrong")),
            Message::ErrorResponse(body) => Err(connection.refused(&body)),
            _ => Err(connection.nonsense("SCRAM without the server's final message")),
        }
    }

    fn accept(&self, method: AuthMethod, how: &str) -> Result<(), Failure> {
        if self.require_auth.allows(method) {
            return Ok(());
        }
        let accepted = self.require_auth;
        let remedy = match method {
            AuthMethod::Password | AuthMethod::Md5 => format!(
                "store its password as SCRAM (password_encryption = scram-sha-256) and ask for scram-sha-256, or \
                 verify the server's certificate (sslmode = \"verify-full\"), or set require_auth = \"{}\"",
                accepted.with(method)
            ),
            AuthMethod::ScramSha256 | AuthMethod::None => {
                format!("set require_auth = \"{}\"", accepted.with(method))
            }
        };
        Err(declined(&format!(
            "the server {how}, [check] require_auth is \"{accepted}\": {remedy}"
        )))
    }

    fn password(&self) -> Result<&Secret, Failure> {
        let none = "the server asks for a password, and [check] has no password_file";
        self.password.ok_or_else(|| declined(none))
    }
}

/// Refuses a challenge (`r=...,s=...,i=4096`, RFC 5802) that requests too much work. A challenge
/// without an iteration count is refused later.
fn check_iterations(challenge: &[u8]) -> Result<(), Failure> {
    let text = String::from_utf8_lossy(challenge);
    let iterations = text.split(',').find_map(|part| part.strip_prefix("i="));
    match iterations.map(str::parse::<u32>) {
        Some(Ok(iterations)) if iterations > SCRAM_ITERATIONS_MAX => Err(declined(&format!(
            "the server asks for {iterations} SCRAM iterations, the limit is {SCRAM_ITERATIONS_MAX}: set a lower \
             scram_iterations and then the password of the check login anew"
        ))),
        _ => Ok(()),
    }
}

/// Runs the exchange after the challenge. Hashing a password takes milliseconds, which would block
/// the engine.
async fn hashed(mut scram: ScramSha256, challenge: Vec<u8>) -> io::Result<ScramSha256> {
    let permit = HASHING.acquire().await.map_err(io::Error::other)?;
    let hashing = spawn_blocking(move || {
        let updated = scram.update(&challenge).map(|()| scram);
        drop(permit);
        updated
    });
    hashing.await.map_err(io::Error::other)?
}

fn declined(why: &str) -> Failure {
    Failure::LoginDeclined(Arc::from(why))
}

fn unknown_method() -> Failure {
    declined("the server asks for a method of authentication that pgsteer does not have")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_may_not_ask_for_more_work_than_the_limit() {
        for (challenge, is_fine) in [
            ("r=abc,s=QSXCR+Q6sek8bf92,i=4096", true),
            ("r=abc,s=QSXCR+Q6sek8bf92,i=100000", true),
            ("r=abc,s=QSXCR+Q6sek8bf92,i=100001", false),
            ("r=i=9999999,s=QSXCR+Q6sek8bf92,i=4000000000", false),
        ] {
            assert_eq!(check_iterations(challenge.as_bytes()).is_ok(), is_fine, "{challenge}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn hashing_blocks_no_other_task() {
        let scram = ScramSha256::new(b"geheim", ChannelBinding::unsupported());
        let first = String::from_utf8(scram.message().to_vec()).unwrap();
        let nonce = first.split("r=").nth(1).unwrap();
        let challenge = format!("r={nonce}abc,s=QSXCR+Q6sek8bf92,i={SCRAM_ITERATIONS_MAX}");
        let mut ticks = 0;
        let hashing = hashed(scram, challenge.into_bytes());
        tokio::pin!(hashing);
        loop {
            tokio::select! {
                biased;
                hashed = &mut hashing => break assert!(hashed.is_ok()),
                () = tokio::time::sleep(std::time::Duration::from_millis(1)) => ticks += 1,
            }
        }
        assert!(ticks > 3, "{ticks}");
    }
}
