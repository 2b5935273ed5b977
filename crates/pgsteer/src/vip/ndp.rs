//! Neighbour discovery for one IPv6 address: announcements, and the question whether another machine
//! has it (RFC 4861).

use std::net::Ipv6Addr;

use super::interface::Mac;

/// All machines of the network.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The length of the messages here, in bytes: head, target, one option.
pub const MESSAGE_BYTES: usize = 32;

const SOLICITATION: u8 = 135;
/// The type of an advertisement.
pub const ADVERTISEMENT: u8 = 136;
/// The flag of an advertisement that replaces the receiver's entry.
const OVERRIDE: u8 = 0x20;
const OPTION_SOURCE: u8 = 1;
const OPTION_TARGET: u8 = 2;

/// The unsolicited advertisement of `address`. The kernel adds the checksum.
pub fn announcement(mac: Mac, address: Ipv6Addr) -> [u8; MESSAGE_BYTES] {
    message(ADVERTISEMENT, OVERRIDE, address, OPTION_TARGET, mac)
}

/// The question who has `address`.
pub fn probe(mac: Mac, address: Ipv6Addr) -> [u8; MESSAGE_BYTES] {
    message(SOLICITATION, 0, address, OPTION_SOURCE, mac)
}

/// The group in which a machine with `address` listens for the question.
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (a & 0xff), b)
}

/// Returns the machine that advertises `address`; none if `message` is another one.
pub fn advertiser(message: &[u8], address: Ipv6Addr) -> Option<Mac> {
    let is_advertisement = message.first() == Some(&ADVERTISEMENT);
    let target: [u8; 16] = message.get(8..24)?.try_into().ok()?;
    let option = message.get(24..MESSAGE_BYTES)?;
    let is_option = option[..2] == [OPTION_TARGET, 1];
    let mac = option.get(2..8)?.try_into().ok()?;
    (is_advertisement && Ipv6Addr::from(target) == address && is_option).then_some(mac)
}

fn message(kind: u8, flags: u8, target: Ipv6Addr, option: u8, mac: Mac) -> [u8; MESSAGE_BYTES] {
    let head = [kind, 0, 0, 0, flags, 0, 0, 0];
    let parts: [&[u8]; 4] = [&head, &target.octets(), &[option, 1], &mac];
    let mut message = [0; MESSAGE_BYTES];
    for (place, byte) in message.iter_mut().zip(parts.iter().copied().flatten()) {
        *place = *byte;
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0x70, 10, 0, 0, 11];

    #[test]
    fn an_advertisement_is_read_back_and_other_messages_are_not() {
        let vip: Ipv6Addr = "fd00::12:3456".parse().unwrap();
        let own = announcement(MAC, vip);
        assert_eq!(advertiser(&own, vip), Some(MAC));
        assert_eq!(advertiser(&own, ALL_NODES), None);
        assert_eq!(advertiser(&probe(MAC, vip), vip), None);
        for length in 0..MESSAGE_BYTES {
            assert_eq!(advertiser(&own[..length], vip), None);
        }
        assert_eq!(own[4], OVERRIDE);
    }

    #[test]
    fn the_group_of_an_address_has_its_last_three_bytes() {
        let vip: Ipv6Addr = "fd00::12:3456".parse().unwrap();
        assert_eq!(solicited_node(vip).to_string(), "ff02::1:ff12:3456");
    }
}
