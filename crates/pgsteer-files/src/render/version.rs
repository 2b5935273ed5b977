//! The versions of HAProxy.

use super::refusal::Refusal;

/// A version of HAProxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HaproxyVersion {
    major: u16,
    minor: u16,
}

impl HaproxyVersion {
    /// The oldest supported version.
    pub const OLDEST: HaproxyVersion = HaproxyVersion { major: 2, minor: 6 };
    /// The first version in which a server need not be UP before its first check (`init-state`).
    pub(crate) const INIT_STATE: HaproxyVersion = HaproxyVersion { major: 3, minor: 1 };

    /// Returns true if a client for which HAProxy is connecting, or waits to connect again, may hang forever when
    /// the sessions of its server are shut down (observed with 3.0.11, and not with 2.6.12 and 3.2.26).
    /// `retries 0` leaves the time of one connection attempt.
    pub fn loses_connecting_clients(self) -> bool {
        self >= HaproxyVersion::new(3, 0) && self < HaproxyVersion::INIT_STATE
    }

    /// Creates a version from its first two numbers.
    pub(crate) const fn new(major: u16, minor: u16) -> HaproxyVersion {
        HaproxyVersion { major, minor }
    }

    /// Parses `2.6`, or `3.1.5`, whose last number is ignored.
    ///
    /// # Errors
    /// Not a version, or one before [`HaproxyVersion::OLDEST`].
    pub fn read(text: &str) -> Result<HaproxyVersion, Refusal> {
        let wrong = || Refusal::HaproxyVersion(text.to_owned());
        let mut numbers = text.split('.').map(|number| number.parse::<u16>().map_err(|_| wrong()));
        let mut next = || numbers.next().unwrap_or_else(|| Err(wrong()));
        let version = HaproxyVersion { major: next()?, minor: next()? };
        (version >= HaproxyVersion::OLDEST).then_some(version).ok_or_else(wrong)
    }
}

impl std::fmt::Display for HaproxyVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}
