//! One line of pg_hba.conf.

use super::address::{From, from, octal_of};
use super::fields::{Field, INCLUDES, Item, Logical, fields};
use super::{Refused, options};
use crate::lint::location::Location;
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
        one_of(first, &TYPES, "connection type", true)?;
        let refused = |place: Location, why: String| Refused { place, why, is_strange: false };
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
        one_of(method, &METHODS, "method", false)?;
        single(method, "the method")?;
        too_new(method, postgres)?;
        if let Some(why) = mismatch(first.text(), method.text()) {
            return Err(refused(method.place, why.to_owned()));
        }
        let given: Vec<&Field> = rest.collect();
        check_options(first, method, &given, postgres)?;
        let given: Vec<&str> = given.iter().map(|option| option.text()).collect();
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
        (_, "peer") => Some("`peer` is for `local` lines only"),
        _ => None,
    }
}

/// Refuses a word that is none of `known`.
fn one_of(
    field: &Field,
    known: &[&'static str],
    what: &str,
    is_strange: bool,
) -> Result<(), Refused> {
    if known.contains(&field.text()) {
        return Ok(());
    }
    let meant = nearest(field.text(), known);
    let meant = meant.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    let why = format!("`{}` is not a {what}{meant}", word_shown(field.text()));
    Err(Refused { place: field.place, why, is_strange })
}

/// Refuses options that do not suit the method.
fn check_options(
    kind: &Field,
    method: &Field,
    given: &[&Field],
    postgres: Option<u16>,
) -> Result<(), Refused> {
    let refused = |place, why| Refused { place, why, is_strange: false };
    for option in given {
        let why = options::refusal(kind.text(), method.text(), option.text(), postgres);
        if let Some(why) = why {
            return Err(refused(option.place, why));
        }
    }
    let texts: Vec<&str> = given.iter().map(|option| option.text()).collect();
    match options::refusal_of_all(method.text(), &texts) {
        Some(why) => Err(refused(method.place, why.to_owned())),
        None => Ok(()),
    }
}

/// Refuses several words in a field for one (hba.c: "multiple values specified for ...").
fn single(field: &Field, what: &str) -> Result<(), Refused> {
    match field.items.len() {
        0 | 1 => Ok(()),
        _ => Err(Refused {
            place: field.place,
            why: format!("{what} takes one word"),
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
                "`{}` needs PostgreSQL {since} or later, and this is {version}",
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

fn end_of(fields: &[Field]) -> usize {
    fields.last().map_or(1, |field| field.place.column_end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::hba::fields::logical_lines;

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
    fn a_line_that_postgresql_refuses_has_a_reason() {
        let why = |text: &str| read(text).unwrap_err().why;
        assert_eq!(
            why("hots all all 10.0.0.1/32 trust"),
            "`hots` is not a connection type; did you mean `host`?"
        );
        assert_eq!(why("host all all 10.0.0.1 trust"), "`10.0.0.1` has no mask: `10.0.0.1/32`");
        assert_eq!(
            why("host all all 10.0.0.1/33 trust"),
            "`10.0.0.1/33` is not a network: the prefix length is wrong"
        );
        assert_eq!(
            why("host all all 10.0.0.1/32 scram-sha256"),
            "`scram-sha256` is not a method; did you mean `scram-sha-256`?"
        );
        assert_eq!(why("host all all db.example.com/32 md5"), "`db.example.com` is not an address");
        assert_eq!(why("host all all 10.0.0.0/8 key=secret"), "`key=…` is not a method");
        assert_eq!(why("hostnossl all all all cert"), "`cert` is for `hostssl` lines only");
        assert_eq!(why("host all all all peer"), "`peer` is for `local` lines only");
        assert_eq!(why("local all all gss"), "there is no `gss` or `sspi` on a `local` socket");
        assert_eq!(
            why("host all all all md5 clientcert=verify-ca"),
            "`clientcert` is for `hostssl` lines only"
        );
        assert_eq!(
            why("host all all all ldap ldapbasedn=x ldapbindpasswd= hunter2"),
            "only options may follow the method: NAME=VALUE"
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
        assert_eq!(why("host all all all md5,trust"), "the method takes one word");
        assert!(why("hostssl all all all md5 clientcert=1").contains("from PostgreSQL 14 on"));
        let of =
            |version, text: &str| Entry::read(&logical_lines(text).remove(0), version).is_err();
        assert!(!of(Some(13), "hostssl all all all md5 clientcert=1"));
        assert!(of(Some(17), "host all all all oauth issuer=x scope=y"));
        assert!(!of(Some(18), "host all all all oauth issuer=x scope=y") && !of(None, "include x"));
        assert!(of(Some(15), "include x"));
        assert!(read("hostssl all all all cert clientcert=verify-full map=x").is_ok());
        assert_eq!(why("host all all all"), "the method is missing");
        assert_eq!(why("host \"all all"), "a quote is not closed");
    }
}
