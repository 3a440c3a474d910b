//! Logging in on the replication link: trust, cleartext, md5 and SCRAM-SHA-256, bound to the TLS channel where the
//! server offers it (RFC 5802, RFC 7677, and the manual's "SASL Authentication").

use bytes::{Buf, Bytes};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::frontend;

use super::SourceError;
use super::link::{Link, refused, unexpected};
use crate::postgres::{ConnectError, Server};

/// Codes of the `Authentication` messages.
const OK: i32 = 0;
const CLEARTEXT: i32 = 3;
const MD5: i32 = 5;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
const SASL_FINAL: i32 = 12;

/// Answers the server until it says `AuthenticationOk`.
pub(super) async fn authenticate(
    link: &mut Link,
    server: &Server,
    end_point: Option<Vec<u8>>,
) -> Result<(), SourceError> {
    let (code, body) = challenge(link, server).await?;
    match code {
        OK if server.channel_binding() == Some(true) => {
            return Err(failed(server, "channel_binding=require, and the server does not ask for SCRAM"));
        }
        OK => return Ok(()),
        CLEARTEXT => {
            demand_no_binding(server)?;
            let password = password(server)?;
            frontend::password_message(password, &mut link.out)?;
        }
        MD5 => {
            demand_no_binding(server)?;
            let salt =
                body.first_chunk::<4>().ok_or_else(|| failed(server, "an md5 challenge without salt"))?;
            let hash = md5_hash(server.user().as_bytes(), password(server)?, *salt);
            frontend::password_message(hash.as_bytes(), &mut link.out)?;
        }
        SASL => scram(link, server, &body, end_point).await?,
        other => {
            return Err(failed(
                server,
                &format!("the server asks for method {other}, which walhook does not speak"),
            ));
        }
    }
    link.flush().await?;
    match challenge(link, server).await? {
        (OK, _) => Ok(()),
        (other, _) => Err(failed(server, &format!("the server asks again, by method {other}"))),
    }
}

async fn scram(
    link: &mut Link,
    server: &Server,
    mechanisms: &[u8],
    end_point: Option<Vec<u8>>,
) -> Result<(), SourceError> {
    let offers = |name: &str| mechanisms.split(|byte| *byte == 0).any(|m| m == name.as_bytes());
    let end_point = end_point.filter(|_| server.channel_binding() != Some(false));
    let (binding, mechanism) = match end_point {
        Some(hash) if offers(SCRAM_SHA_256_PLUS) => {
            (ChannelBinding::tls_server_end_point(hash), SCRAM_SHA_256_PLUS)
        }
        _ if server.channel_binding() == Some(true) => {
            return Err(failed(server, "channel_binding=require, and the connection cannot be bound"));
        }
        Some(_) if offers(SCRAM_SHA_256) => (ChannelBinding::unrequested(), SCRAM_SHA_256),
        None if offers(SCRAM_SHA_256) => (ChannelBinding::unsupported(), SCRAM_SHA_256),
        _ => return Err(failed(server, "the server offers no SASL mechanism that walhook speaks")),
    };
    let wrong = |source: std::io::Error| authentication(server, source.into());
    let mut scram = ScramSha256::new(password(server)?, binding);
    frontend::sasl_initial_response(mechanism, scram.message(), &mut link.out)?;
    link.flush().await?;
    let (code, body) = challenge(link, server).await?;
    if code != SASL_CONTINUE {
        return Err(failed(server, "the SCRAM exchange is out of order"));
    }
    scram.update(&body).map_err(wrong)?;
    frontend::sasl_response(scram.message(), &mut link.out)?;
    link.flush().await?;
    let (code, body) = challenge(link, server).await?;
    if code != SASL_FINAL {
        return Err(failed(server, "the SCRAM exchange is out of order"));
    }
    scram.finish(&body).map_err(wrong)
}

/// The next `Authentication` message: its code and the rest.
async fn challenge(link: &mut Link, server: &Server) -> Result<(i32, Bytes), SourceError> {
    loop {
        let mut frame = link.frame().await?;
        match frame.tag {
            b'R' => {
                let code = frame.body.try_get_i32();
                let code = code.map_err(|_| failed(server, "message 'R' that ends too early"))?;
                return Ok((code, frame.body));
            }
            b'E' => return Err(refused(server, &frame.body).into()),
            b'N' => {}
            tag => return Err(unexpected(tag, "authentication")),
        }
    }
}

fn password(server: &Server) -> Result<&[u8], SourceError> {
    server.password().ok_or_else(|| failed(server, "the server asks for a password and none is given"))
}

fn demand_no_binding(server: &Server) -> Result<(), SourceError> {
    match server.channel_binding() {
        Some(true) => Err(failed(server, "channel_binding=require, and the server does not ask for SCRAM")),
        _ => Ok(()),
    }
}

fn failed(server: &Server, problem: &str) -> SourceError {
    authentication(server, problem.into())
}

fn authentication(server: &Server, source: Box<dyn std::error::Error + Send + Sync>) -> SourceError {
    let (server, user) = (server.display(), server.user().to_owned());
    ConnectError::Authentication { server, user, source }.into()
}
