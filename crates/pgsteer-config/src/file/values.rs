//! TOML values to typed ones. Each function says what it expects when it finds another type.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use pgsteer_core::units::{near_time, seconds_text};

use super::reader::{Value, kind};
use crate::address;
use crate::lag::{lag_bytes, lag_bytes_in_range};
use crate::limits::{PORT, Seconds, Whole};
use crate::plain;
use crate::problem::Problem;

/// A string that `make` understands; `example` is shown where there is another type.
pub fn text<T>(
    example: &'static str,
    make: impl FnOnce(&str) -> Result<T, Problem>,
) -> impl FnOnce(&Value<'_>) -> Result<T, Problem> {
    move |value| match value {
        Value::String(text) => make(text),
        other => Err(Problem::WrongType {
            wants: "a string",
            example: example.to_owned(),
            found: kind(other),
        }),
    }
}

/// A number of seconds within `range`.
pub fn seconds(range: Seconds) -> impl FnOnce(&Value<'_>) -> Result<Duration, Problem> {
    move |value| {
        let number = match value {
            Value::Integer(_) | Value::Float(_) => number_text(value),
            other => {
                let near = match other {
                    Value::String(text) => near_time(text),
                    _ => None,
                };
                return Err(Problem::NotSeconds {
                    found: kind(other).to_owned(),
                    range,
                    near: near.filter(|time| range.contains(*time)).map(seconds_text),
                });
            }
        };
        range.read(&number)
    }
}

/// A whole number within `range`.
pub fn whole(range: Whole) -> impl FnOnce(&Value<'_>) -> Result<u64, Problem> {
    move |value| {
        if let Value::Integer(_) = value {
            return range.read(&number_text(value));
        }
        Err(Problem::NotWhole { found: kind(value).to_owned(), range })
    }
}

/// A TCP port.
pub fn port(value: &Value<'_>) -> Result<u16, Problem> {
    if let Value::Integer(_) = value {
        return address::port(&number_text(value));
    }
    Err(Problem::NotWhole { found: kind(value).to_owned(), range: PORT })
}

/// A lag limit in bytes: a number of them, or a string with a unit.
pub fn bytes(value: &Value<'_>) -> Result<u64, Problem> {
    match value {
        Value::String(text) => lag_bytes(text),
        Value::Integer(_) => {
            let number = number_text(value);
            lag_bytes_in_range(number.parse().unwrap_or(0), &number)
        }
        other => Err(Problem::WrongType {
            wants: "a size",
            example: "lag_bytes_max = \"16MB\"".to_owned(),
            found: kind(other),
        }),
    }
}

/// An address to listen on: a string, or a port alone.
pub fn listen(value: &Value<'_>) -> Result<SocketAddr, Problem> {
    match value {
        Value::String(text) => address::listen(text),
        Value::Integer(_) => address::listen(&number_text(value)),
        other => Err(Problem::WrongType {
            wants: "an address to listen on",
            example: "listen = \"0.0.0.0:5000\"".to_owned(),
            found: kind(other),
        }),
    }
}

/// An address to listen on, or `false` or `"none"`.
pub fn listen_or_none(value: &Value<'_>) -> Result<Option<SocketAddr>, Problem> {
    match value {
        Value::Boolean(false) => Ok(None),
        Value::Boolean(true) => Err(Problem::WrongType {
            wants: "an address to listen on, or false",
            example: "listen = \"0.0.0.0:7000\"".to_owned(),
            found: "true",
        }),
        Value::String(text) => address::listen_or_none(text),
        other => listen(other).map(Some),
    }
}

/// The value of a tag. Patroni's tags may be flags and numbers; they are compared as text.
pub fn tag(value: &Value<'_>) -> Result<String, Problem> {
    match value {
        Value::String(text) => Ok(text.to_string()),
        Value::Boolean(flag) => Ok(flag.to_string()),
        Value::Integer(_) | Value::Float(_) => Ok(number_text(value)),
        other => Err(Problem::WrongType {
            wants: "a string, a number or a boolean",
            example: "tags = { region = \"west\" }".to_owned(),
            found: kind(other),
        }),
    }
}

/// The path of a file.
pub fn path(value: &Value<'_>) -> Result<PathBuf, Problem> {
    text("\"/etc/pgsteer/ca.pem\"", plain::path)(value)
}

/// A user or database name of PostgreSQL.
pub fn login(value: &Value<'_>) -> Result<String, Problem> {
    text("\"pgcheck\"", plain::login)(value)
}

/// A number as decimal text; TOML also has hexadecimal, octal and binary ones.
fn number_text(value: &Value<'_>) -> String {
    match value {
        Value::Integer(number) if number.radix() != 10 => {
            u64::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| number.to_string(), |number| number.to_string())
        }
        Value::Integer(number) => number.as_str().to_owned(),
        Value::Float(number) => number.as_str().to_owned(),
        _ => String::new(),
    }
}
