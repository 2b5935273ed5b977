//! ARP for one IPv4 address: announcements, and the question whether another machine has it.
//!
//! RFC 5227: a gratuitous request and reply make the machines of the network replace their entry; a
//! probe, whose sender address is zero, makes another machine with the address answer.

use std::net::Ipv4Addr;

use super::interface::Mac;

/// The length of an ARP packet with its Ethernet header, in bytes.
pub const FRAME_BYTES: usize = 42;

const BROADCAST: Mac = [0xff; 6];
const TYPE_ARP: [u8; 2] = [0x08, 0x06];
/// Ethernet, IPv4, and the lengths of their addresses.
const FORMAT: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const REQUEST: u8 = 1;
const REPLY: u8 = 2;

/// The sender of an ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its IPv4 address; unspecified in a probe.
    pub address: Ipv4Addr,
}

/// The announcement of `address`: a request and a reply, since some machines accept only one of them.
pub fn announcement(mac: Mac, address: Ipv4Addr) -> [[u8; FRAME_BYTES]; 2] {
    let sender = Sender { mac, address };
    [frame(REQUEST, sender, [0; 6], address), frame(REPLY, sender, BROADCAST, address)]
}

/// The question whether another machine has `address`.
pub fn probe(mac: Mac, address: Ipv4Addr) -> [u8; FRAME_BYTES] {
    frame(REQUEST, Sender { mac, address: Ipv4Addr::UNSPECIFIED }, [0; 6], address)
}

/// Returns the sender of an ARP packet; none if `frame` is no request or reply for IPv4.
pub fn sender(frame: &[u8]) -> Option<Sender> {
    let packet = frame.get(12..FRAME_BYTES)?;
    let (head, rest) = packet.split_at(8);
    let is_arp = head[..2] == TYPE_ARP && head[2..] == FORMAT;
    let is_known = rest[0] == 0 && matches!(rest[1], REQUEST | REPLY);
    let mac = rest.get(2..8)?.try_into().ok()?;
    let address: [u8; 4] = rest.get(8..12)?.try_into().ok()?;
    (is_arp && is_known).then_some(Sender { mac, address: address.into() })
}

fn frame(operation: u8, sender: Sender, target: Mac, address: Ipv4Addr) -> [u8; FRAME_BYTES] {
    let parts: [&[u8]; 9] = [
        &BROADCAST,
        &sender.mac,
        &TYPE_ARP,
        &FORMAT,
        &[0, operation],
        &sender.mac,
        &sender.address.octets(),
        &target,
        &address.octets(),
    ];
    let mut frame = [0; FRAME_BYTES];
    for (place, byte) in frame.iter_mut().zip(parts.iter().copied().flatten()) {
        *place = *byte;
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0x70, 10, 0, 0, 11];
    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);

    #[test]
    fn an_announcement_names_the_address_as_sender_and_as_target() {
        let [request, reply] = announcement(MAC, VIP);
        let mut expected = vec![0xff; 6];
        expected.extend(MAC);
        expected.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        expected.extend(MAC);
        expected.extend([10, 0, 0, 50, 0, 0, 0, 0, 0, 0, 10, 0, 0, 50]);
        assert_eq!(request.to_vec(), expected);
        assert_eq!(reply[20..22], [0, 2]);
        assert_eq!(sender(&request), Some(Sender { mac: MAC, address: VIP }));
        assert_eq!(sender(&reply), Some(Sender { mac: MAC, address: VIP }));
    }

    #[test]
    fn a_probe_claims_nothing() {
        let asked = sender(&probe(MAC, VIP)).unwrap();
        assert_eq!(asked.address, Ipv4Addr::UNSPECIFIED);
    }

    #[test]
    fn a_short_or_foreign_frame_has_no_sender() {
        let [request, _] = announcement(MAC, VIP);
        for length in 0..FRAME_BYTES {
            assert_eq!(sender(&request[..length]), None);
        }
        for at in [13, 15, 17, 18, 19, 20, 21] {
            let mut other = request;
            other[at] ^= 0x40;
            assert_eq!(sender(&other), None, "byte {at}");
        }
    }
}
