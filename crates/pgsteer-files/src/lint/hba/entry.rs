//! One line of pg_hba.conf.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Refused, options};
use crate::lint::finding::Location;
use crate::lint::word_shown;
use pgsteer_config::suggest::nearest;

const TYPES: [&str; 6] = ["local", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"];
const METHODS: [&str; 15] = [
    "trust",
    "reject",
    "scram-sha-256",
    "md5",
    "password",
    "gss",
    "sspi",
    "ident",
    "peer",
    "ldap",
    "radius",
    "cert",
    "oauth",
    "pam",
    "bsd",
];
/// `include` and similar words refer to other files.
const INCLUDES: [&str; 3] = ["include", "include_if_exists", "include_dir"];

/// A word, with or without quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The text without quotes.
    pub text: String,
    /// A quoted keyword is a name.
    pub is_quoted: bool,
}

impl Item {
    /// Returns true if it is this keyword.
    pub fn is(&self, keyword: &str) -> bool {
        !self.is_quoted && self.text == keyword
    }
}

/// A field: one or more words separated by commas.
#[derive(Clone, Debug)]
pub struct Field {
    /// The words.
    pub items: Vec<Item>,
    /// Its place.
    pub place: Location,
}

impl Field {
    fn text(&self) -> &str {
        self.items.first().map_or("", |item| item.text.as_str())
    }
}

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

/// One line.
#[derive(Clone, Debug)]
pub struct Entry {
    /// `local`, `host`, ...
    pub kind: String,
    /// The databases.
    pub databases: Vec<Item>,
    /// The users.
    pub users: Vec<Item>,
    /// The origin.
    pub from: From,
    /// The authentication method.
    pub method: String,
    /// The client needs a certificate of its own (`clientcert=verify-full`).
    pub has_certificate: bool,
    /// PostgreSQL sends the password to an LDAP server in clear.
    pub asks_in_clear: bool,
    /// The address as written, if a number in it is read as octal.
    pub octal: Option<String>,
    /// The place of the address; for `local` the whole line.
    pub from_place: Location,
    /// The place of the method.
    pub method_place: Location,
    /// The whole line.
    pub place: Location,
}

/// A line with its continuation lines.
pub struct Logical {
    /// The number, from 1.
    number: usize,
    text: String,
}

impl Logical {
    /// Returns true if it includes another file.
    pub fn is_include(&self) -> bool {
        self.text.split_whitespace().next().is_some_and(|word| INCLUDES.contains(&word))
    }
}

/// Returns the lines with content; a backslash at the end continues a line.
pub fn logical_lines(text: &str) -> Vec<Logical> {
    let mut lines: Vec<Logical> = Vec::new();
    let mut is_continued = false;
    for (number, line) in (1..).zip(text.lines()) {
        let (line, continues) = line.strip_suffix('\\').map_or((line, false), |line| (line, true));
        match lines.last_mut().filter(|_| is_continued) {
            Some(last) => last.text.push_str(line),
            None => lines.push(Logical { number, text: line.to_owned() }),
        }
        is_continued = continues;
    }
    lines
}

impl Entry {
    /// Parses a line; none if it is empty, or includes another file.
    pub fn read(line: &Logical, postgres: Option<u16>) -> Result<Option<Entry>, Refused> {
        let fields = fields(line)?;
        let Some(first) = fields.first() else { return Ok(None) };
        too_new(first, postgres)?;
        if INCLUDES.contains(&first.text()) {
            return Ok(None);
        }
        single(first, "the type of connection")?;
        let refused = |place: Location, why: String| Refused { place, why, is_strange: false };
        if !TYPES.contains(&first.text()) {
            let meant = nearest(first.text(), &TYPES);
            let meant = meant.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            let why = format!("`{}` is no type of connection{meant}", word_shown(first.text()));
            return Err(Refused { place: first.place, why, is_strange: true });
        }
        let place = Location { column_end: end_of(&fields), ..first.place };
        let missing = |what: &str| refused(place, format!("{what} is missing"));
        let mut rest = fields.iter().skip(1);
        let databases = rest.next().ok_or_else(|| missing("the database"))?.items.clone();
        let users = rest.next().ok_or_else(|| missing("the user"))?.items.clone();
        let (mut octal, mut address_text) = (None, String::new());
        let (from, from_place) = match first.text() {
            "local" => (From::Local, place),
            _ => {
                let address = rest.next().ok_or_else(|| missing("the address"))?;
                single(address, "the address")?;
                address_text = address.text().to_owned();
                (from(address, &mut rest)?, address.place)
            }
        };
        if let From::Network(..) = from {
            octal = octal_of(&address_text);
        }
        let method = rest.next().ok_or_else(|| missing("the method"))?;
        if !METHODS.contains(&method.text()) {
            let meant = nearest(method.text(), &METHODS);
            let meant = meant.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            let why = format!("`{}` is no method{meant}", word_shown(method.text()));
            return Err(refused(method.place, why));
        }
        single(method, "the method")?;
        too_new(method, postgres)?;
        if let Some(why) = mismatch(first.text(), method.text()) {
            return Err(refused(method.place, why.to_owned()));
        }
        let given: Vec<&Field> = rest.collect();
        for option in &given {
            let why = options::refusal(first.text(), method.text(), option.text(), postgres);
            if let Some(why) = why {
                return Err(refused(option.place, why));
            }
        }
        let given: Vec<&str> = given.iter().map(|option| option.text()).collect();
        if let Some(why) = options::refusal_of_all(method.text(), &given) {
            return Err(refused(method.place, why.to_owned()));
        }
        Ok(Some(Entry {
            kind: first.text().to_owned(),
            databases,
            users,
            from,
            method: method.text().to_owned(),
            has_certificate: given.contains(&"clientcert=verify-full"),
            asks_in_clear: asks_in_clear(method.text(), &given),
            octal,
            from_place,
            method_place: method.place,
            place,
        }))
    }

    /// Returns true if it lists this database by a keyword or by its name.
    pub fn is_for_database(&self, name: &str) -> bool {
        self.databases.iter().any(|item| item.is(name))
    }

    /// The origin as written in the line.
    pub fn origin(&self) -> String {
        match &self.from {
            From::Local => "this machine".to_owned(),
            From::All => "all addresses".to_owned(),
            From::SameHost => "samehost".to_owned(),
            From::SameNet => "samenet".to_owned(),
            From::Network(address, bits) => format!("{address}/{bits}"),
            From::Name(name) => word_shown(name),
            From::Other(text) => text.clone(),
        }
    }
}

/// Returns the reason why PostgreSQL refuses a method with this connection type (`parse_hba_line`
/// in hba.c).
fn mismatch(kind: &str, method: &str) -> Option<&'static str> {
    match (kind, method) {
        ("local", "gss" | "sspi") => Some("there is no `gss` or `sspi` on a `local` socket"),
        ("hostssl", "cert") | ("local", "peer") => None,
        (_, "cert") => Some("`cert` is for `hostssl` lines only"),
        (_, "peer") => Some("`peer` is for `local` lines only: over TCP nobody tells who is there"),
        _ => None,
    }
}

/// Refuses several words in a field for one (hba.c: "multiple values specified for ...").
fn single(field: &Field, what: &str) -> Result<(), Refused> {
    match field.items.len() {
        0 | 1 => Ok(()),
        _ => Err(Refused {
            place: field.place,
            why: format!("{what} is one word"),
            is_strange: false,
        }),
    }
}

/// Refuses a word that only later versions of PostgreSQL support.
fn too_new(field: &Field, postgres: Option<u16>) -> Result<(), Refused> {
    let since = options::since(field.text());
    match (since, postgres) {
        (Some(since), Some(version)) if version < since => {
            let why = format!(
                "`{}` is of PostgreSQL {since} and later, and this is {version}",
                field.text()
            );
            Err(Refused { place: field.place, why, is_strange: false })
        }
        _ => Ok(()),
    }
}

/// Returns true if the password goes to the LDAP server without TLS.
fn asks_in_clear(method: &str, options: &[&str]) -> bool {
    let is_safe = |option: &&str| {
        matches!(*option, "ldaptls=1" | "ldapscheme=ldaps") || option.starts_with("ldapurl=ldaps:")
    };
    method == "ldap" && !options.iter().any(is_safe)
}

/// Returns the text of an address in which a number with a leading zero is octal.
fn octal_of(text: &str) -> Option<String> {
    let address = text.split('/').next().unwrap_or(text);
    let is_other = |part: &str| {
        part.len() > 1 && part.starts_with('0') && part.parse::<u32>().ok() != part_of_address(part)
    };
    address.split('.').any(is_other).then(|| text.to_owned())
}

fn end_of(fields: &[Field]) -> usize {
    fields.last().map_or(1, |field| field.place.column_end)
}

/// Parses the address, with the mask that may be in its own field.
fn from<'a>(
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
            wrong(format!("`{}` is no network: the number behind the slash", address_shown(text)))
        };
        let bits: u8 = bits.parse().map_err(|_| wrong_bits())?;
        return match numeric(address) {
            Some(address) if bits > bits_of(address) => Err(wrong_bits()),
            Some(address) => Ok(From::Network(address, bits)),
            None if bits <= 128 && is_zoned(address) => Ok(From::Other(text.to_owned())),
            None => Err(wrong(format!("`{}` is no address", address_shown(address)))),
        };
    }
    match numeric(text) {
        Some(address) => {
            let mask = rest.clone().next().and_then(|field| field.text().parse::<IpAddr>().ok());
            let Some(mask) = mask.filter(|mask| bits_of(*mask) == bits_of(address)) else {
                let why = format!("`{text}` wants a mask: `{text}/{}`", bits_of(address));
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

/// Splits a line into fields.
fn fields(line: &Logical) -> Result<Vec<Field>, Refused> {
    let mut fields: Vec<Field> = Vec::new();
    let mut reader = Reader { chars: line.text.chars().collect(), at: 0, number: line.number };
    while let Some(field) = reader.field()? {
        fields.push(field);
    }
    Ok(fields)
}

struct Reader {
    chars: Vec<char>,
    at: usize,
    number: usize,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    /// Returns the next field; words that are separated by a comma are one field.
    fn field(&mut self) -> Result<Option<Field>, Refused> {
        while self.peek().is_some_and(|c| c.is_whitespace() || c == ',') {
            self.at += 1;
        }
        let started_at = self.at;
        let mut items = Vec::new();
        while let Some(item) = self.item()? {
            items.push(item);
            // `a, b`: a comma joins the next word, even after spaces.
            if self.peek() != Some(',') {
                break;
            }
            while self.peek().is_some_and(|c| c.is_whitespace() || c == ',') {
                self.at += 1;
            }
        }
        let place = Location { line: self.number, column: started_at + 1, column_end: self.at + 1 };
        Ok((!items.is_empty()).then_some(Field { items, place }))
    }

    fn item(&mut self) -> Result<Option<Item>, Refused> {
        let started_at = self.at;
        let (mut text, mut is_quoted, mut is_open) = (String::new(), false, false);
        while let Some(c) = self.peek() {
            match c {
                '"' if is_open && self.chars.get(self.at + 1) == Some(&'"') => {
                    text.push('"');
                    self.at += 1;
                }
                '"' => {
                    is_open = !is_open;
                    is_quoted |= text.is_empty();
                }
                c if !is_open && (c.is_whitespace() || c == ',' || c == '#') => break,
                c => text.push(c),
            }
            self.at += 1;
        }
        if is_open {
            let place =
                Location { line: self.number, column: started_at + 1, column_end: self.at + 1 };
            return Err(Refused {
                place,
                why: "a quote is opened and not closed".to_owned(),
                is_strange: false,
            });
        }
        if self.peek() == Some('#') && self.at == started_at {
            self.at = self.chars.len();
        }
        Ok((!text.is_empty() || is_quoted).then_some(Item { text, is_quoted }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Entry>, Refused> {
        Entry::read(&logical_lines(text).remove(0), None)
    }

    #[test]
    fn a_line_is_read() {
        let entry =
            read("host  \"all\",app all,  bob  10.0.0.0 255.255.0.0  md5 # x").unwrap().unwrap();
        assert!(!entry.is_for_database("all"), "in quotes it is a name");
        assert!(entry.is_for_database("app"));
        assert_eq!(entry.users.len(), 2);
        assert_eq!(entry.from, From::Network("10.0.0.0".parse().unwrap(), 16));
        assert_eq!(entry.method, "md5");
        let entry = read("hostssl all all fd00::/8 scram-sha-256 clientcert=verify-full").unwrap();
        assert_eq!(entry.unwrap().from, From::Network("fd00::".parse().unwrap(), 8));
        let entry = read("local all all \\\n peer").unwrap().unwrap();
        assert_eq!((entry.from, entry.method.as_str()), (From::Local, "peer"));
        assert!(read("  # nothing").unwrap().is_none());
        assert!(read("include other.conf").unwrap().is_none());
    }

    #[test]
    fn addresses_have_many_forms() {
        let from = |address: &str| {
            read(&format!("host all all {address} md5")).unwrap().map(|entry| entry.from)
        };
        let network = |address: &str, bits| Some(From::Network(address.parse().unwrap(), bits));
        assert_eq!(from("0/0"), network("0.0.0.0", 0));
        assert_eq!(from("10.1/16"), network("10.0.0.1", 16));
        assert_eq!(from("10.1.258/16"), network("10.1.1.2", 16));
        assert_eq!(from("fe80::1%lo/64"), Some(From::Other("fe80::1%lo/64".to_owned())));
        let gaps = "10.0.0.5 255.0.255.0";
        assert_eq!(from(gaps), Some(From::Other(gaps.to_owned())));
        assert_eq!(from("010.0.0.0/8"), network("8.0.0.0", 8));
        assert_eq!(from("0x0a.0.0.1/32"), network("10.0.0.1", 32));
        let octal = |text: &str| read(&format!("host all all {text} md5")).unwrap().unwrap().octal;
        assert_eq!(octal("010.0.0.0/8"), Some("010.0.0.0/8".to_owned()));
        assert_eq!(octal("192.168.001.1/32"), None, "001 is 1 either way");
        assert!(read("host all all 10.0.0.09/32 md5").is_err());
        assert!(read("host all all 10.0.0.1.2/8 md5").is_err());
        assert!(read("host all all 10.256/8 md5").unwrap().is_some());
    }

    #[test]
    fn what_postgresql_refuses_says_why() {
        let why = |text: &str| read(text).unwrap_err().why;
        assert_eq!(
            why("hots all all 10.0.0.1/32 trust"),
            "`hots` is no type of connection; did you mean `host`?"
        );
        assert_eq!(why("host all all 10.0.0.1 trust"), "`10.0.0.1` wants a mask: `10.0.0.1/32`");
        assert_eq!(
            why("host all all 10.0.0.1/33 trust"),
            "`10.0.0.1/33` is no network: the number behind the slash"
        );
        assert_eq!(
            why("host all all 10.0.0.1/32 scram-sha256"),
            "`scram-sha256` is no method; did you mean `scram-sha-256`?"
        );
        assert_eq!(why("host all all db.example.com/32 md5"), "`db.example.com` is no address");
        assert_eq!(why("host all all 10.0.0.0/8 key=secret"), "`key=…` is no method");
        assert_eq!(why("hostnossl all all all cert"), "`cert` is for `hostssl` lines only");
        assert_eq!(
            why("host all all all peer"),
            "`peer` is for `local` lines only: over TCP nobody tells who is there"
        );
        assert_eq!(why("local all all gss"), "there is no `gss` or `sspi` on a `local` socket");
        assert_eq!(
            why("host all all all md5 clientcert=verify-ca"),
            "`clientcert` is for `hostssl` lines only"
        );
        assert_eq!(
            why("host all all all ldap ldapbasedn=x ldapbindpasswd= hunter2"),
            "what stands behind the method is no option: those are NAME=VALUE"
        );
        let map =
            "`map` is an option of ident, peer, gss, sspi, cert, oauth, and the method is `md5`";
        assert_eq!(why("host all all all md5 map=x"), map);
        assert_eq!(
            why("host all all all ldap ldapserver=dc1"),
            "`ldap` needs `ldapprefix`, `ldapsuffix` or `ldapbasedn`"
        );
        assert_eq!(
            why("host all all all radius radiusservers=a"),
            "`radius` needs `radiussecrets`"
        );
        assert_eq!(why("host all all all trust foo=x"), "there is no option `foo`");
        assert_eq!(why("host all all all md5,trust"), "the method is one word");
        assert!(why("hostssl all all all md5 clientcert=1").contains("from PostgreSQL 14 on"));
        let of =
            |version, text: &str| Entry::read(&logical_lines(text).remove(0), version).is_err();
        assert!(!of(Some(13), "hostssl all all all md5 clientcert=1"));
        assert!(of(Some(17), "host all all all oauth issuer=x scope=y"));
        assert!(!of(Some(18), "host all all all oauth issuer=x scope=y") && !of(None, "include x"));
        assert!(of(Some(15), "include x"));
        assert!(read("hostssl all all all cert clientcert=verify-full map=x").is_ok());
        assert_eq!(why("host all all all"), "the method is missing");
        assert_eq!(why("host \"all all"), "a quote is opened and not closed");
    }
}
