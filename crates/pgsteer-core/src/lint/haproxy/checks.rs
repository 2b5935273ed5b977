//! What the checks of a proxy ask, and what they can tell of a member's role.

use super::lines::{Line, Word};
use super::proxy::Proxy;
use super::values::number;
use crate::config::limits::{HTTP_LISTEN, PATRONI_PORT};

/// Whom clients of a proxy want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one that takes writes.
    Primary,
    /// Any that is fit to read from.
    Replica,
}

/// From what the role is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The health check asks for it.
    Check,
    /// The agent is asked for it.
    AgentSend,
    /// The proxy is called so, and nothing else tells.
    Name,
}

/// How the servers of a proxy are checked.
#[derive(Clone, Debug)]
pub enum Check<'a> {
    /// Can a connection be opened?
    Connect,
    /// `option httpchk`; the path is empty if it cannot be told.
    Http {
        /// The option.
        line: &'a Line,
        /// What is asked for, without the query.
        path: &'a str,
    },
    /// `option tcp-check` with rules of its own.
    Tcp(Vec<&'a Line>),
    /// `option pgsql-check`: does PostgreSQL answer a startup packet?
    Pgsql,
    /// Something else.
    Other,
    /// None that this file tells of; another one may.
    Unknown,
}

const OPTIONS: [&str; 9] = [
    "httpchk",
    "tcp-check",
    "pgsql-check",
    "external-check",
    "ldap-check",
    "mysql-check",
    "redis-check",
    "smtpchk",
    "ssl-hello-chk",
];

impl<'a> Check<'a> {
    /// The check of `proxy`.
    pub fn of(proxy: &Proxy<'a>) -> Check<'a> {
        let chosen = OPTIONS.into_iter().filter_map(|name| Some((name, proxy.option(name)?)));
        // Each replaces the one before; a later line is nearer, because `defaults` come first.
        match chosen.max_by_key(|(_, line)| line.number) {
            None if proxy.is_piece => Check::Unknown,
            None => Check::Connect,
            Some(("httpchk", line)) => Check::Http { line, path: path(proxy, line) },
            Some(("tcp-check", _)) => match proxy.nearest("tcp-check") {
                rules if rules.iter().all(|rule| rule.begins(&["tcp-check", "connect"])) => {
                    Check::Connect
                }
                rules => Check::Tcp(rules),
            },
            Some(("pgsql-check", _)) => Check::Pgsql,
            Some(_) => Check::Other,
        }
    }
}

fn path<'a>(proxy: &Proxy<'a>, line: &'a Line) -> &'a str {
    let send = proxy.nearest("http-check").into_iter().rfind(|line| line.word(1) == "send");
    let sent = send.and_then(|line| {
        let at = line.words.iter().position(|word| word.is("uri") || word.is("uri-lf"))?;
        line.words.get(at + 1)
    });
    // `option httpchk URI` or `option httpchk METHOD URI ...`.
    let given = sent.or_else(|| line.words.get(if line.words.len() > 3 { 3 } else { 2 }));
    let path = given.map_or("/", |word| word.known().unwrap_or_default());
    path.split_once('?').map_or(path, |(path, _)| path)
}

/// What is known of the role that clients of a proxy want.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The role.
    pub role: Role,
    /// From what it is known.
    pub source: Source,
    /// A pgsteer judges the cluster as a whole, and says yes for one primary alone.
    pub is_judged: bool,
}

impl Wanted {
    /// The role that clients of `proxy` want, as far as it can be told.
    pub fn of(proxy: &Proxy<'_>) -> Option<Wanted> {
        let of_agent = agent_question(proxy).and_then(role_of_word);
        let is_judged = is_question_for_pgsteer(proxy);
        let wanted = |role, source| Wanted { role, source, is_judged };
        match Check::of(proxy) {
            // It may be DOWN what is asked for.
            Check::Http { .. } if !expects_yes(proxy) => return None,
            Check::Http { path: "/" | "OPTIONS/", .. } if !is_at_patroni(proxy) => {}
            Check::Http { path, .. } => {
                let is_judged = is_judged || is_page_of_pgsteer(path) || is_at_pgsteer(proxy);
                let role = role_of_path(path)?;
                return Some(Wanted { role, source: Source::Check, is_judged });
            }
            Check::Tcp(rules) => {
                if let Some(role) = role_of_rules(&rules) {
                    return Some(wanted(role, Source::Check));
                }
            }
            Check::Other => return None,
            Check::Connect | Check::Pgsql | Check::Unknown => {}
        }
        if let Some(role) = of_agent {
            return Some(wanted(role, Source::AgentSend));
        }
        role_of_name(proxy.name).map(|role| wanted(role, Source::Name))
    }

    /// Clients want the primary.
    pub fn is_primary(proxy: &Proxy<'_>) -> bool {
        Wanted::of(proxy).is_some_and(|wanted| wanted.role == Role::Primary)
    }
}

/// The check goes to Patroni's port, where no path is that of the primary.
fn is_at_patroni(proxy: &Proxy<'_>) -> bool {
    !proxy.is_piece && proxy.members().any(|server| server.check_port() == Some(PATRONI_PORT))
}

/// A server is UP by an answer of 200, or of 2xx, and by no other that tells.
fn expects_yes(proxy: &Proxy<'_>) -> bool {
    let rules = proxy.nearest("http-check");
    rules.iter().filter(|rule| rule.word(1) == "expect").all(|rule| {
        let at = rule.words.iter().position(|word| word.is("status") || word.is("rstatus"));
        let is_yes = |at: usize| match rule.word(at + 1).trim_start_matches(['^', '(']) {
            "200" => true,
            range if rule.word(at) == "status" => {
                range.split_once('-').is_some_and(|(from, to)| {
                    number(from) == Some(200)
                        && number(to).is_some_and(|to| (200..400).contains(&to))
                })
            }
            pattern => pattern.starts_with('2') && !pattern.starts_with("206"),
        };
        at.is_some_and(|at| is_yes(at) && !rule.words.iter().any(|word| word.is("!")))
    })
}

/// The first word of what an agent is asked.
fn agent_question<'a>(proxy: &Proxy<'a>) -> Option<&'a str> {
    agent_words(proxy).first().copied()
}

/// What the first agent that is asked anything is asked.
fn agent_words<'a>(proxy: &Proxy<'a>) -> Vec<&'a str> {
    let asked = proxy.servers.iter().filter(|server| server.has_agent());
    let asked = asked.map(|server| server.settings.text("agent-send").split_whitespace().collect());
    asked.into_iter().find(|words: &Vec<&str>| !words.is_empty()).unwrap_or_default()
}

/// It is asked what pgsteer's agent answers: for a role, or for a member of some service.
fn is_question_for_pgsteer(proxy: &Proxy<'_>) -> bool {
    match agent_words(proxy).as_slice() {
        [role] => role_of_word(role).is_some(),
        [_, _member] => true,
        _ => false,
    }
}

/// The checks go to the port of pgsteer's pages.
fn is_at_pgsteer(proxy: &Proxy<'_>) -> bool {
    let mut members = proxy.members().peekable();
    members.peek().is_some()
        && members.all(|server| server.check_port() == Some(HTTP_LISTEN.port()))
}

/// One of the pages of pgsteer that Patroni has not.
fn is_page_of_pgsteer(path: &str) -> bool {
    path.starts_with("/members/") || path.starts_with("/services/")
}

/// The role that one of Patroni's health checks asks for, or one of pgsteer's.
fn role_of_path(path: &str) -> Option<Role> {
    match path {
        "/" | "OPTIONS/" => Some(Role::Primary),
        path => role_of_word(path.rsplit_once('/').map_or(path, |(_, last)| last)),
    }
}

fn role_of_word(word: &str) -> Option<Role> {
    match word.split('?').next().unwrap_or_default() {
        "primary" | "master" | "leader" | "read-write" | "write" | "standby-leader"
        | "standby_leader" => Some(Role::Primary),
        "replica" | "read-only" | "read" | "sync" | "synchronous" | "async" | "asynchronous"
        | "quorum" | "read-only-sync" | "read-only-quorum" => Some(Role::Replica),
        _ => None,
    }
}

/// `select pg_is_in_recovery()` and what it has to be.
fn role_of_rules(rules: &[&Line]) -> Option<Role> {
    let wanted: String = rules
        .iter()
        .filter(|rule| rule.begins(&["tcp-check", "expect", "binary"]))
        .map(|rule| rule.word(3).to_ascii_lowercase())
        .collect();
    let answers = |value: &str| wanted.contains(&format!("000100000001{value}"));
    match (answers("66"), answers("74")) {
        (true, false) => Some(Role::Primary),
        (false, true) => Some(Role::Replica),
        _ => None,
    }
}

/// The role that a proxy is named after. A name that speaks of both tells nothing.
pub fn role_of_name(name: &str) -> Option<Role> {
    let name = name.to_ascii_lowercase();
    let parts = || name.split(|c: char| !c.is_ascii_alphanumeric());
    let has = |words: &[&str]| parts().any(|part| words.contains(&part));
    let primary = ["primary", "master", "leader", "write", "writes", "writer", "rw", "readwrite"];
    let replica = [
        "replica", "replicas", "standby", "standbys", "slave", "slaves", "read", "reads", "reader",
        "readonly", "ro",
    ];
    match (has(&primary), has(&replica)) {
        (true, false) => Some(Role::Primary),
        (false, true) => Some(Role::Replica),
        _ => None,
    }
}

/// The words of a line behind `at`, in hexadecimal, if they are that.
pub fn hex(word: Option<&Word>) -> Option<Vec<u8>> {
    let text = word?.known()?;
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(
        digits
            .chunks_exact(2)
            .map(|pair| pair.iter().fold(0, |sum, digit| sum * 16 + digit))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::haproxy::proxy::Model;
    use crate::lint::haproxy::sections::File;

    fn wanted(body: &str) -> Option<(Role, Source, bool)> {
        let server = "server a 10.0.0.1:5432 check port 8008";
        let text = format!("global\nlisten x\n mode tcp\n{body}\n{server}\n");
        let file = File::read(&text);
        let wanted = Wanted::of(&Model::new(&file).proxies[0])?;
        Some((wanted.role, wanted.source, wanted.is_judged))
    }

    #[test]
    fn the_check_tells_whom_clients_want() {
        let is = |role, source, is_judged| Some((role, source, is_judged));
        use Role::{Primary, Replica};
        assert_eq!(wanted("option httpchk"), is(Primary, Source::Check, false));
        assert_eq!(wanted("option httpchk OPTIONS /master"), is(Primary, Source::Check, false));
        assert_eq!(wanted("option httpchk /replica?lag=1MB"), is(Replica, Source::Check, false));
        assert_eq!(wanted("option httpchk OPTIONS/replica"), is(Replica, Source::Check, false));
        assert_eq!(wanted("option httpchk GET /healthz"), None);
        assert_eq!(wanted("option httpchk OPTIONS /primary\nhttp-check expect ! status 200"), None);
        assert_eq!(wanted("option httpchk OPTIONS /primary\nhttp-check expect status 503"), None);
        let send = "option httpchk\nhttp-check send meth GET uri-lf /members/%[srv_name]/primary";
        assert_eq!(wanted(send), is(Primary, Source::Check, true));
        let rows = "option tcp-check\ntcp-check expect binary 44\ntcp-check expect binary 0000000b\n\
                    tcp-check expect binary 000100000001\ntcp-check expect binary";
        assert_eq!(wanted(&format!("{rows} 66")), is(Primary, Source::Check, false));
        assert_eq!(wanted(&format!("{rows} 74")), is(Replica, Source::Check, false));
        let agent = "server a 10.0.0.1:5432 check agent-check agent-port 5555 agent-send";
        let asked = format!("{agent} \"read n1\\n\"");
        assert_eq!(wanted(&asked), is(Replica, Source::AgentSend, true));
    }

    #[test]
    fn a_name_tells_where_nothing_else_does() {
        assert_eq!(role_of_name("pg-primary_5000"), Some(Role::Primary));
        assert_eq!(role_of_name("mast-pgX_psql_readwrite"), Some(Role::Primary));
        assert_eq!(role_of_name("read"), Some(Role::Replica));
        assert_eq!(role_of_name("read_write"), None);
        assert_eq!(role_of_name("bread"), None);
    }
}
