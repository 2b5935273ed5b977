//! Values in HAProxy's syntax: times, numbers, addresses.

use std::net::IpAddr;

use super::lines::Word;

/// The value of a setting, as far as the file shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given<T> {
    /// It is absent, so HAProxy's default applies.
    Absent,
    /// It is present, and the file does not show its value.
    Unknown,
    /// The value.
    Is(T),
}

impl<T> Given<T> {
    /// Returns the effective value; none if it is unknown.
    pub fn or(self, default: T) -> Option<T> {
        match self {
            Given::Absent => Some(default),
            Given::Unknown => None,
            Given::Is(value) => Some(value),
        }
    }

    /// Returns the value, if it is present and known.
    pub fn known(self) -> Option<T> {
        match self {
            Given::Is(value) => Some(value),
            Given::Absent | Given::Unknown => None,
        }
    }

    /// Converts a setting: none for an absent one, and none inside for an unknown value.
    pub fn of_nested(there: Option<Option<T>>) -> Given<T> {
        match there {
            None => Given::Absent,
            Some(None) => Given::Unknown,
            Some(Some(value)) => Given::Is(value),
        }
    }

    /// Parses a present word with `read`.
    pub fn read(word: Option<&Word>, read: impl Fn(&str) -> Option<T>) -> Given<T> {
        match word {
            None => Given::Absent,
            Some(word) => word.known().and_then(read).map_or(Given::Unknown, Given::Is),
        }
    }
}

/// Parses a time in milliseconds; a number without a unit is in that unit (configuration manual,
/// 2.5 "Time format").
pub fn time_ms(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "us" => Some(number.div_ceil(1_000)),
        "" | "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        _ => None,
    }
}

/// Parses a whole number.
pub fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

/// Formats a time for a person.
pub fn time_text(ms: u64) -> String {
    match ms {
        ms if ms >= 86_400_000 && ms % 86_400_000 == 0 => format!("{} d", ms / 86_400_000),
        ms if ms >= 3_600_000 && ms % 3_600_000 == 0 => format!("{} h", ms / 3_600_000),
        ms if ms >= 120_000 && ms % 60_000 == 0 => format!("{} min", ms / 60_000),
        ms if ms % 1_000 == 0 => format!("{} s", ms / 1_000),
        ms if ms > 1_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        ms => format!("{ms} ms"),
    }
}

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Host name or address, without brackets; empty for all addresses.
    pub host: String,
    /// `ipv4@` or `ipv6@`, if present.
    pub family: &'static str,
    /// The port; none if absent, or if it is added to the client's port.
    pub port: Option<u16>,
}

impl Address {
    /// Parses `host:port`; none for sockets and for forms that only HAProxy can resolve.
    pub fn read(text: &str) -> Option<Address> {
        let family = ["ipv4@", "ipv6@"].into_iter().find(|kind| text.starts_with(kind));
        let family = family.unwrap_or("");
        let text = text.strip_prefix(family).unwrap_or(text);
        if text.contains(['@', '/']) {
            return None;
        }
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            // HAProxy takes the last colon as that of the port, also in IPv6.
            None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        let port = port.and_then(|port| port.parse().ok());
        Some(Address { host: host.to_owned(), family, port })
    }

    /// Returns true if only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        let ip = self.host.parse::<IpAddr>();
        ip.is_ok_and(|ip| ip.is_loopback()) || self.host == "localhost"
    }

    /// Returns true if it means all addresses of the machine.
    pub fn is_any(&self) -> bool {
        matches!(self.host.as_str(), "" | "*" | "::" | "0.0.0.0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(time_ms("3s"), Some(3_000));
        assert_eq!(time_ms("500"), Some(500));
        assert_eq!(time_ms("24d"), Some(2_073_600_000));
        assert_eq!(time_ms("1500us"), Some(2));
        for wrong in ["", "s", "3 s", "-1s", "3w", "99999999999999999999s", "18446744073709551615d"]
        {
            assert_eq!(time_ms(wrong), None, "{wrong}");
        }
        let shown = [0, 857, 3_000, 3_500, 50_000, 1_800_000, 7_200_000, 2_073_600_000];
        let shown = shown.map(time_text).join(", ");
        assert_eq!(shown, "0 s, 857 ms, 3 s, 3.5 s, 50 s, 30 min, 2 h, 24 d");
    }

    #[test]
    fn addresses_have_a_host_and_maybe_a_port() {
        let read = |text| Address::read(text).map(|a| (a.host, a.port));
        assert_eq!(read("10.0.0.1:5432"), Some(("10.0.0.1".to_owned(), Some(5432))));
        assert_eq!(read("[fd00::11]:5432"), Some(("fd00::11".to_owned(), Some(5432))));
        assert_eq!(read("*:5000"), Some(("*".to_owned(), Some(5000))));
        assert_eq!(read(":5000"), Some((String::new(), Some(5000))));
        assert_eq!(read("pg-1"), Some(("pg-1".to_owned(), None)));
        assert_eq!(read("pg-1:+1000"), Some(("pg-1".to_owned(), None)));
        assert_eq!(read("ipv4@pg-1:5432"), Some(("pg-1".to_owned(), Some(5432))));
        assert_eq!(read("unix@/run/x"), None);
        assert_eq!(read("abns@guard"), None);
        assert_eq!(read("/run/x.sock"), None);
    }
}
