//! `[vip.NAME]`: addresses of this machine that follow a service.

use std::collections::BTreeMap;
use std::net::IpAddr;

use pgsteer_core::names::{ServiceName, VipName};
use pgsteer_core::settings::{Membership, ServiceConfig, VipConfig};

use crate::conflict::Conflict;
use crate::error::ConfigErrors;
use crate::field::Given;
use crate::key::{Key, SectionKeys};
use crate::kinds::Text;
use crate::limits::VIPS_MAX;
use crate::origin::Origin;
use crate::plain;
use crate::written::{Draft, Section};

/// The section of each address.
pub static KEYS: SectionKeys = SectionKeys {
    name: SECTION,
    help: "Addresses that follow a service, each as [vip.NAME], on a machine of a member. The local \
           member has the address while the service routes to it; of a service of replicas, one \
           of its members has it. pgsteer needs CAP_NET_ADMIN and CAP_NET_RAW: \
           see docs/VIP.md.",
    keys: &[&ADDRESS, &INTERFACE, &SERVICE],
    at_restart: false,
};

/// The name of the section.
pub const SECTION: &str = "vip";

static ADDRESS: Key<Text<(IpAddr, u8)>> =
    Key::new(SECTION, "address", Text::new("ADDRESS/PREFIX", plain::vip))
        .example("\"10.0.0.50/24\"")
        .help("The address, IPv4 or IPv6, with the length of the prefix of its network.");

static INTERFACE: Key<Text<String>> =
    Key::new(SECTION, "interface", Text::new("name of an interface", plain::interface))
        .example("\"eth0\"")
        .help("The network interface that gets the address.");

static SERVICE: Key<Text<ServiceName>> =
    Key::new(SECTION, "service", Text::new("name of a service", plain::service))
        .example("\"write\"")
        .unset("`write`")
        .help("The service that the address follows.");

/// The service that an address follows by default.
const SERVICE_USUAL: &str = "write";

/// Returns the addresses; those with an error are left out.
pub fn finish(
    draft: &Draft,
    members: &Membership,
    services: &BTreeMap<ServiceName, ServiceConfig>,
    errors: &mut ConfigErrors,
) -> BTreeMap<VipName, VipConfig> {
    let Some(given) = draft.vips.given() else { return BTreeMap::new() };
    let (found, max) = (given.value.len(), VIPS_MAX);
    if found > max {
        errors.push(given.origin.clone(), Conflict::TooMany { found, max });
    }
    let mut vips = BTreeMap::new();
    let mut seen: Vec<(IpAddr, Origin)> = Vec::new();
    for (name, section) in given.value.iter().take(VIPS_MAX) {
        let Some(vip) = finish_one(section, services, errors) else { continue };
        let address = section.value.get(&ADDRESS);
        let origin = address.given().map_or(&section.origin, |given| &given.origin);
        if let Some((_, other)) = seen.iter().find(|(earlier, _)| *earlier == vip.address) {
            let (what, other) = (vip.address.to_string(), other.clone());
            errors.push(origin.clone(), Conflict::Same { what, other });
        }
        if let Some(owner) = owner(members, vip.address) {
            errors.push(origin.clone(), Conflict::VipOfMember(vip.address, owner));
        }
        seen.push((vip.address, origin.clone()));
        vips.insert(name.clone(), vip);
    }
    vips
}

fn finish_one(
    section: &Given<Section>,
    services: &BTreeMap<ServiceName, ServiceConfig>,
    errors: &mut ConfigErrors,
) -> Option<VipConfig> {
    let keys = &section.value;
    let (address, interface) = (keys.get(&ADDRESS), keys.get(&INTERFACE));
    for (is_absent, key, example) in [
        (address.is_absent(), "address", "address = \"10.0.0.50/24\""),
        (interface.is_absent(), "interface", "interface = \"eth0\""),
    ] {
        if is_absent {
            errors.push(section.origin.clone(), Conflict::Missing { key, example });
        }
    }
    let service = keys.get(&SERVICE);
    let origin = service.given().map_or(&section.origin, |given| &given.origin).clone();
    let is_wrong = service.is_wrong();
    let named = service.value().or_else(|| ServiceName::new(SERVICE_USUAL).ok());
    let named = named.filter(|_| !is_wrong)?;
    if !services.contains_key(&named) {
        let known = services.keys().map(ToString::to_string).collect();
        errors.push(origin, Conflict::VipWithoutService(named, known));
        return None;
    }
    let (address, prefix) = address.value()?;
    Some(VipConfig { address, prefix, interface: interface.value()?, service: named })
}

/// Returns the member whose own address this is, as far as the configuration shows that.
fn owner(members: &Membership, address: IpAddr) -> Option<String> {
    match members {
        Membership::Listed(members) => {
            let owner = members.iter().find(|member| member.postgres.ip() == Some(address));
            owner.map(|member| format!("member {}", member.name))
        }
        Membership::Patroni(patroni) => {
            let host = match address {
                IpAddr::V4(address) => format!("://{address}:"),
                IpAddr::V6(address) => format!("://[{address}]:"),
            };
            patroni.urls.iter().find(|url| url.contains(&host)).cloned()
        }
    }
}
