//! The stored orders of operators, as a small JSON file.
//!
//! `{"version": 1, "orders": [{"member": "n2", "service": "read", "until": 1783166400,
//! "why": "disk", "by": "root", "since": "2026-07-04T12:00:00Z", "forced": false}]}`

use serde::{Deserialize, Serialize};
use thiserror::Error;

use pgsteer_core::names::{MemberName, NameError, ServiceName};
use pgsteer_core::orders::{DrainTarget, ORDERS_MAX, OrderText};

/// The maximum size of such a file in bytes.
pub const ORDERS_BYTES_MAX: usize = 256 * 1024;

/// The version that is written, and the only one that is accepted.
const VERSION: u32 = 1;

/// The reason why a file is not used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadOrders {
    /// It is not JSON of this shape.
    #[error("it is not as pgsteer writes it: {0}")]
    NotJson(String),
    /// It has another version.
    #[error("it is of version {0}, and version {VERSION} is read")]
    Version(u32),
    /// It has too many orders.
    #[error("it has {0} orders, and there are at most {ORDERS_MAX}")]
    TooMany(usize),
    /// An order in it has no usable name.
    #[error("an order in it: {0}")]
    Name(#[from] NameError),
}

/// An order as it is stored. Its end is a time of day, because the process that reads it is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOrder {
    /// The member and the service.
    pub target: DrainTarget,
    /// When it expires, in seconds since 1970; none if it lasts until it is withdrawn.
    pub until_unix_seconds: Option<u64>,
    /// The operator's reason.
    pub why: Option<OrderText>,
    /// The operator.
    pub by: OrderText,
    /// The time of day at which it was given.
    pub since: OrderText,
    /// It was given with `--force`.
    pub is_forced: bool,
}

#[derive(Serialize, Deserialize)]
struct Body {
    version: u32,
    orders: Vec<OrderBody>,
}

#[derive(Serialize, Deserialize)]
struct OrderBody {
    member: String,
    service: Option<String>,
    until: Option<u64>,
    why: Option<String>,
    by: String,
    since: String,
    forced: bool,
}

/// Returns the text of the file.
pub fn orders_text(orders: &[StoredOrder]) -> String {
    let order = |order: &StoredOrder| OrderBody {
        member: order.target.member.to_string(),
        service: order.target.service.as_ref().map(ServiceName::to_string),
        until: order.until_unix_seconds,
        why: order.why.as_ref().map(OrderText::to_string),
        by: order.by.to_string(),
        since: order.since.to_string(),
        forced: order.is_forced,
    };
    let body = Body { version: VERSION, orders: orders.iter().map(order).collect() };
    // Serializing a struct of texts and numbers cannot fail.
    serde_json::to_string_pretty(&body).unwrap_or_default()
}

/// Parses the text of the file.
///
/// # Errors
/// The text is not such a file, or has another version.
pub fn parse_orders(text: &[u8]) -> Result<Vec<StoredOrder>, BadOrders> {
    let body: Body =
        serde_json::from_slice(text).map_err(|error| BadOrders::NotJson(error.to_string()))?;
    if body.version != VERSION {
        return Err(BadOrders::Version(body.version));
    }
    if body.orders.len() > ORDERS_MAX {
        return Err(BadOrders::TooMany(body.orders.len()));
    }
    body.orders.into_iter().map(order).collect()
}

fn order(body: OrderBody) -> Result<StoredOrder, BadOrders> {
    let member = MemberName::new(&body.member)?;
    let service = body.service.as_deref().map(ServiceName::new).transpose()?;
    Ok(StoredOrder {
        target: DrainTarget { member, service },
        until_unix_seconds: body.until,
        why: body.why.as_deref().map(OrderText::new),
        by: OrderText::new(&body.by),
        since: OrderText::new(&body.since),
        is_forced: body.forced,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(member: &str, service: Option<&str>) -> StoredOrder {
        let service = service.map(|name| ServiceName::new(name).unwrap());
        StoredOrder {
            target: DrainTarget { member: MemberName::new(member).unwrap(), service },
            until_unix_seconds: Some(1_783_166_400),
            why: Some(OrderText::new("disk \"sda\"")),
            by: OrderText::new("root"),
            since: OrderText::new("2026-07-04T12:00:00Z"),
            is_forced: true,
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let for_ever = StoredOrder { until_unix_seconds: None, why: None, ..stored("ü\"2", None) };
        let orders = [stored("n1", Some("read")), for_ever];
        assert_eq!(parse_orders(orders_text(&orders).as_bytes()).as_deref(), Ok(&orders[..]));
    }

    #[test]
    fn a_truncated_or_changed_file_is_refused() {
        let text = orders_text(&[stored("n1", None)]);
        for cut in 0..text.len() {
            assert!(parse_orders(&text.as_bytes()[..cut]).is_err(), "{cut}");
        }
        let changed = |from: &str, to: &str| parse_orders(text.replace(from, to).as_bytes());
        assert_eq!(changed("\"version\": 1", "\"version\": 2"), Err(BadOrders::Version(2)));
        assert!(matches!(changed("\"n1\"", "\"\\n\""), Err(BadOrders::Name(_))));
        assert!(matches!(changed("1783166400", "-1"), Err(BadOrders::NotJson(_))));
        for garbage in [&b""[..], b"[]", b"{}", b"\xff", b"null"] {
            assert!(parse_orders(garbage).is_err());
        }
        let many = orders_text(&vec![stored("n1", None); ORDERS_MAX + 1]);
        assert_eq!(parse_orders(many.as_bytes()), Err(BadOrders::TooMany(ORDERS_MAX + 1)));
        assert!(many.len() < ORDERS_BYTES_MAX);
    }

    #[test]
    fn texts_of_a_file_are_cleaned_and_cut() {
        let text = orders_text(&[stored("n1", None)]);
        let long = format!("\"{}\\u001b[2J\"", "x".repeat(1_000));
        let read = parse_orders(text.replace("\"root\"", &long).as_bytes()).unwrap();
        assert!(read[0].by.as_str().chars().count() < 100);
        assert!(!read[0].by.as_str().contains('\u{1b}'));
    }
}
