//! The origin of a login: addresses and networks as PostgreSQL reads them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Refused;
use super::fields::Field;
use crate::lint::word_shown;

/// The origin of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// This machine, through a socket.
    Local,
    /// Any address.
    All,
    /// An address of this machine.
    SameHost,
    /// A network of this machine.
    SameNet,
    /// This network.
    Network(IpAddr, u8),
    /// This host, or all hosts of a domain if it begins with a dot.
    Name(String),
    /// An address that PostgreSQL accepts and lint does not evaluate: an address with a zone, or a
    /// mask with gaps.
    Other(String),
}

/// Returns the text of an address in which a number with a leading zero is octal.
pub fn octal_of(text: &str) -> Option<String> {
    let address = text.split('/').next().unwrap_or(text);
    let is_other = |part: &str| {
        part.len() > 1 && part.starts_with('0') && part.parse::<u32>().ok() != part_of_address(part)
    };
    address.split('.').any(is_other).then(|| text.to_owned())
}

/// Parses the address, with the mask that may be in its own field.
pub fn from<'a>(
    field: &Field,
    rest: &mut (impl Iterator<Item = &'a Field> + Clone),
) -> Result<From, Refused> {
    let text = field.text();
    let wrong = |why: String| Refused { place: field.place, why, is_strange: false };
    let Some(item) = field.items.first() else { return Err(wrong("the address is empty".into())) };
    if item.is("all") {
        return Ok(From::All);
    } else if item.is("samehost") {
        return Ok(From::SameHost);
    } else if item.is("samenet") {
        return Ok(From::SameNet);
    }
    if let Some((address, bits)) = text.split_once('/') {
        let wrong_bits = || {
            wrong(format!("`{}` is not a network: the prefix length is wrong", address_shown(text)))
        };
        let bits: u8 = bits.parse().map_err(|_| wrong_bits())?;
        return match numeric(address) {
            Some(address) if bits > bits_of(address) => Err(wrong_bits()),
            Some(address) => Ok(From::Network(address, bits)),
            None if bits <= 128 && is_zoned(address) => Ok(From::Other(text.to_owned())),
            None => Err(wrong(format!("`{}` is not an address", address_shown(address)))),
        };
    }
    match numeric(text) {
        Some(address) => {
            let mask = rest.clone().next().and_then(|field| field.text().parse::<IpAddr>().ok());
            let Some(mask) = mask.filter(|mask| bits_of(*mask) == bits_of(address)) else {
                let why = format!("`{text}` has no mask: `{text}/{}`", bits_of(address));
                return Err(wrong(why));
            };
            rest.next();
            match bits_of_mask(mask) {
                Some(bits) => Ok(From::Network(address, bits)),
                None => Ok(From::Other(format!("{address} {mask}"))),
            }
        }
        None => Ok(From::Name(text.to_ascii_lowercase())),
    }
}

/// Parses a number of an address: decimal, octal with a leading zero, or hexadecimal with `0x`
/// (inet_aton).
fn part_of_address(part: &str) -> Option<u32> {
    let is_plain = part.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'x');
    let (digits, radix) = match part.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None if part.len() > 1 && part.starts_with('0') => (part, 8),
        None => (part, 10),
    };
    u32::from_str_radix(digits, radix).ok().filter(|_| is_plain)
}

/// Parses a numeric address, also with fewer than four numbers: `10.1` is 10.0.0.1, and `0` is
/// 0.0.0.0 (inet_aton).
fn numeric(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let parts: Vec<u32> = text.split('.').map(part_of_address).collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    let rest_bits = 32_u32.checked_sub(8 * u32::try_from(first.len()).ok()?)?;
    let fits = rest_bits == 32 || rest_bits > 0 && *last < 1 << rest_bits;
    let first = first.iter().enumerate().try_fold(0_u32, |sum, (at, part)| {
        let shift = 24_u32.checked_sub(8 * u32::try_from(at).ok()?)?;
        (*part < 256).then(|| sum | part << shift)
    });
    fits.then_some(())?;
    Some(IpAddr::V4(Ipv4Addr::from_bits(first? | last)))
}

/// `fe80::1%eth0`.
fn is_zoned(address: &str) -> bool {
    address.split_once('%').is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok())
}

/// Returns the text for a message. A text with several colons that looks like an address is shown
/// whole.
fn address_shown(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_hexdigit() || ":./%".contains(c);
    if text.len() <= 60 && text.chars().all(is_part) { text.to_owned() } else { word_shown(text) }
}

/// Returns the number of bits of an address of this family.
pub const fn bits_of(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn bits_of_mask(mask: IpAddr) -> Option<u8> {
    let (ones, back) = match mask {
        IpAddr::V4(mask) => {
            let ones = mask.to_bits().leading_ones();
            let back = u32::MAX.checked_shl(32 - ones).unwrap_or(0);
            (ones, IpAddr::V4(Ipv4Addr::from_bits(back)))
        }
        IpAddr::V6(mask) => {
            let ones = mask.to_bits().leading_ones();
            let back = u128::MAX.checked_shl(128 - ones).unwrap_or(0);
            (ones, IpAddr::V6(Ipv6Addr::from_bits(back)))
        }
    };
    u8::try_from(ones).ok().filter(|_| back == mask)
}
