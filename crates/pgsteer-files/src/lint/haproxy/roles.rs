//! The role that the clients of a proxy need, and the evidence for it.

use super::checks::{
    Check, Expectation, Request, checked_ports, expectations, requests, text_sent,
};
use super::lines::Line;
use super::patroni::{self, Answer, is_patroni_path, is_patroni_port};
use super::proxy::Proxy;
use super::role::{Role, role_of_name, role_of_word};
use pgsteer_config::limits::HTTP_LISTEN;

/// The evidence for the role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The health check requests it over HTTP, as Patroni answers it.
    Http,
    /// The health check queries it from PostgreSQL.
    Sql,
    /// The health check runs a program with the role in its name.
    Script,
    /// The agent check requests it.
    AgentSend,
    /// The proxy has the role in its name, and there is no other evidence.
    Name,
}

impl Source {
    /// Returns true if the health check tests the role.
    pub const fn is_check(self) -> bool {
        matches!(self, Source::Http | Source::Sql | Source::Script)
    }
}

/// The role that the clients of a proxy need, with its evidence.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The role.
    pub role: Role,
    /// The evidence.
    pub source: Source,
    /// A pgsteer decides for the whole cluster, and answers yes for at most one primary.
    pub is_judged: bool,
}

impl Wanted {
    /// Returns the role that clients of `proxy` need, if the file shows it.
    pub fn of(proxy: &Proxy<'_>) -> Option<Wanted> {
        let is_judged = is_question_for_pgsteer(proxy);
        let wanted = |role, source| Wanted { role, source, is_judged };
        let asked = match Check::of(proxy) {
            Check::Http { .. } => match of_http(proxy) {
                Asked::For(role, is_page_of_pgsteer) => {
                    let is_judged = is_judged || is_page_of_pgsteer || is_at_pgsteer(proxy);
                    return Some(Wanted { role, source: Source::Http, is_judged });
                }
                Asked::NoRole => None,
                Asked::Unclear => return None,
            },
            Check::Tcp(rules) => of_rules(proxy, &rules),
            Check::Script { command, .. } => {
                let file = command.rsplit_once('/').map_or(command, |(_, file)| file);
                // Otherwise the name of the proxy shows the purpose of the program.
                let role = role_of_name(file).or_else(|| role_of_name(proxy.name))?;
                Some((role, Source::Script))
            }
            Check::Other => return None,
            Check::Connect | Check::Pgsql | Check::Unknown => None,
        };
        let of_agent = || Some((agent_question(proxy).and_then(role_of_word)?, Source::AgentSend));
        let of_name = || Some((role_of_name(proxy.name)?, Source::Name));
        let (role, source) = asked.or_else(of_agent).or_else(of_name)?;
        Some(wanted(role, source))
    }

    /// Returns true if the clients need the primary.
    pub fn is_primary(proxy: &Proxy<'_>) -> bool {
        Wanted::of(proxy).is_some_and(|wanted| wanted.role == Role::Primary)
    }
}

/// The condition that an HTTP check tests.
enum Asked {
    /// A role; true if the path is a page of pgsteer, which Patroni does not have.
    For(Role, bool),
    /// A server is UP with any role.
    NoRole,
    /// The file does not show it.
    Unclear,
}

fn of_http(proxy: &Proxy<'_>) -> Asked {
    let expected = expectations(proxy);
    if !expected.iter().all(is_yes) {
        return Asked::Unclear;
    }
    let requests = requests(proxy);
    let of_path = requests.iter().find_map(|request| {
        let role = role_of_request(proxy, request)?;
        Some(Asked::For(role, is_page_of_pgsteer(&request.path)))
    });
    let of_body = || {
        let role = expected.iter().find_map(|it| role_of_pattern(it))?;
        Some(Asked::For(role, false))
    };
    let is_known = |request: &Request<'_>| {
        request.path == "/"
            || request.path == "OPTIONS/"
            || is_at_patroni(proxy)
            || is_patroni_path(&request.path)
    };
    match of_path.or_else(of_body) {
        Some(asked) => asked,
        None if requests.iter().all(is_known) => Asked::NoRole,
        None => Asked::Unclear,
    }
}

/// Returns the role of a request whose answer depends on the role.
fn role_of_request(proxy: &Proxy<'_>, request: &Request<'_>) -> Option<Role> {
    match request.path.as_str() {
        "/" | "OPTIONS/" => is_at_patroni(proxy).then_some(Role::Primary),
        path if is_at_patroni(proxy) && !is_page_of_pgsteer(path) => {
            match patroni::answer(&request.method, path) {
                Answer::Role(role) => Some(role),
                Answer::NoRole | Answer::Unknown => None,
            }
        }
        path => role_of_word(path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()),
    }
}

/// Returns the role in an expected text, such as `"role": "primary"`.
fn role_of_pattern(expected: &Expectation<'_>) -> Option<Role> {
    let is_text = ["string", "rstring", "string-lf"].contains(&expected.kind);
    let names = |word: &str| {
        let mut parts = expected.pattern.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        parts.any(|part| part.eq_ignore_ascii_case(word))
    };
    let is_primary = names("primary") || names("master");
    let is_replica = names("replica") || names("standby");
    match (is_text && !expected.is_negated, is_primary, is_replica) {
        (true, true, false) => Some(Role::Primary),
        (true, false, true) => Some(Role::Replica),
        _ => None,
    }
}

/// Returns true if the check goes to a port of Patroni and no path is that of the primary.
pub fn is_at_patroni(proxy: &Proxy<'_>) -> bool {
    let asks = |server| checked_ports(proxy, server).into_iter().any(is_patroni_port);
    !proxy.is_piece && proxy.members().any(asks)
}

/// Returns true if the check requests a path of Patroni whose status code shows no role, and does
/// not check the answer's body.
pub fn asks_patroni_no_role(proxy: &Proxy<'_>) -> bool {
    let is_role_free =
        |request: &Request<'_>| patroni::answer(&request.method, &request.path) == Answer::NoRole;
    let requests = requests(proxy);
    let is_status = |it: &Expectation<'_>| it.statuses().is_some_and(|it| it.contains(&200));
    matches!(Check::of(proxy), Check::Http { .. })
        && !requests.is_empty()
        && requests.iter().all(is_role_free)
        && is_at_patroni(proxy)
        && expectations(proxy).iter().all(is_status)
}

/// Returns true if a server is UP with the answer 200, and not with 503 or an unknown one. A
/// required text in the answer is a further restriction.
fn is_yes(expected: &Expectation<'_>) -> bool {
    match expected.kind {
        "status" | "rstatus" => {
            expected.statuses().is_some_and(|codes| codes.contains(&200) && !codes.contains(&503))
        }
        "string" | "rstring" | "string-lf" => !expected.is_negated,
        _ => false,
    }
}

/// Returns the first word that the agent check sends.
fn agent_question<'a>(proxy: &Proxy<'a>) -> Option<&'a str> {
    agent_words(proxy).first().copied()
}

/// Returns the words that the first agent check with a question sends.
fn agent_words<'a>(proxy: &Proxy<'a>) -> Vec<&'a str> {
    let asked = proxy.servers.iter().filter(|server| server.has_agent());
    let asked = asked.map(|server| server.settings.text("agent-send").split_whitespace().collect());
    asked.into_iter().find(|words: &Vec<&str>| !words.is_empty()).unwrap_or_default()
}

/// Returns true for a question to pgsteer's agent: for a role, or for a member of a service, which may be drained
/// first.
fn is_question_for_pgsteer(proxy: &Proxy<'_>) -> bool {
    match agent_words(proxy).as_slice() {
        [role] => role_of_word(role).is_some(),
        [_, _member] => true,
        [_, _member, drain] => drain.starts_with("drain_ms="),
        _ => false,
    }
}

/// Returns true if the checks go to the port of pgsteer's pages.
fn is_at_pgsteer(proxy: &Proxy<'_>) -> bool {
    let mut members = proxy.members().peekable();
    members.peek().is_some()
        && members.all(|server| server.check_port() == Some(HTTP_LISTEN.port()))
}

/// Returns true for a page of pgsteer that Patroni does not have.
fn is_page_of_pgsteer(path: &str) -> bool {
    path.starts_with("/members/") || path.starts_with("/services/")
}

/// Returns the role that a tcp-check tests: by an HTTP request, by `select pg_is_in_recovery()` and
/// its expected result, or by a text that names a role.
fn of_rules(proxy: &Proxy<'_>, rules: &[&Line]) -> Option<(Role, Source)> {
    let expected = expectations(proxy);
    let is_no = |it: &Expectation<'_>| it.pattern.contains("503") != it.is_negated;
    let of_request = || {
        let requests = requests(proxy);
        let role = requests.iter().find_map(|request| role_of_request(proxy, request))?;
        (!expected.iter().any(is_no)).then_some((role, Source::Http))
    };
    let of_text = || {
        let role = expected.iter().find_map(role_of_pattern)?;
        let asks_sql = rules.iter().filter_map(|rule| text_sent(rule)).any(|it| is_sql(&it));
        Some((role, if asks_sql { Source::Sql } else { Source::Script }))
    };
    of_request().or_else(|| Some((role_of_rows(rules)?, Source::Sql))).or_else(of_text)
}

fn is_sql(text: &str) -> bool {
    text.to_ascii_lowercase().contains("select")
}

/// `select pg_is_in_recovery()` and its expected result.
fn role_of_rows(rules: &[&Line]) -> Option<Role> {
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

/// Returns true if several of its servers are primaries at the same time, each of its own group:
/// the workers of Citus, or shards.
pub fn has_several_primaries(proxy: &Proxy<'_>) -> bool {
    let name = proxy.name.to_ascii_lowercase();
    let mut parts = name.split(|c: char| !c.is_ascii_alphabetic());
    let of_groups = ["worker", "workers", "citus", "shard", "shards"];
    if parts.any(|part| of_groups.contains(&part)) {
        return true;
    }
    // `g1-a`, `g1-b`, `g2-a`: groups by number, some with several members.
    let groups: Option<Vec<u64>> =
        proxy.servers.iter().map(|server| group_of(server.name)).collect();
    let mut groups = groups.unwrap_or_default();
    let members = groups.len();
    groups.sort_unstable();
    groups.dedup();
    groups.len() >= 2 && members > groups.len()
}

/// Returns the number of the group in a name like `work1-2` or `shard_3_a`.
fn group_of(name: &str) -> Option<u64> {
    let name = name.to_ascii_lowercase();
    let letters = name.find(|c: char| !c.is_ascii_alphabetic())?;
    let (word, rest) = name.split_at(letters);
    let is_group = ["g", "grp", "group", "shard", "w", "wk", "work", "worker"].contains(&word);
    let rest = rest.trim_start_matches(['-', '_', '.']);
    let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0)?;
    let (number, member) = rest.split_at(digits);
    let is_member = member.starts_with(['-', '_', '.']) && member.len() > 1;
    (is_group && is_member).then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::haproxy::model::Model;
    use crate::lint::haproxy::sections::File;

    fn wanted(body: &str) -> Option<(Role, Source, bool)> {
        let server = "server a 10.0.0.1:5432 check port 8008";
        let text = format!("global\nlisten x\n mode tcp\n{body}\n{server}\n");
        let file = File::read(&text);
        let wanted = Wanted::of(&Model::new(&file).proxies[0])?;
        Some((wanted.role, wanted.source, wanted.is_judged))
    }

    #[test]
    fn the_check_selects_the_member_that_clients_need() {
        let is = |role, source, is_judged| Some((role, source, is_judged));
        use Role::{Primary, Replica};
        assert_eq!(wanted("option httpchk"), is(Primary, Source::Http, false));
        assert_eq!(wanted("option httpchk OPTIONS /master"), is(Primary, Source::Http, false));
        assert_eq!(wanted("option httpchk /replica?lag=1MB"), is(Replica, Source::Http, false));
        assert_eq!(wanted("option httpchk OPTIONS/replica"), is(Replica, Source::Http, false));
        assert_eq!(wanted("option httpchk GET /healthz"), None);
        assert_eq!(wanted("option httpchk OPTIONS /primary\nhttp-check expect ! status 200"), None);
        assert_eq!(wanted("option httpchk OPTIONS /primary\nhttp-check expect status 503"), None);
        let send = "option httpchk\nhttp-check send meth GET uri-lf /members/%[srv_name]/primary";
        assert_eq!(wanted(send), is(Primary, Source::Http, true));
        let rows = "option tcp-check\ntcp-check expect binary 44\ntcp-check expect binary 0000000b\n\
                    tcp-check expect binary 000100000001\ntcp-check expect binary";
        assert_eq!(wanted(&format!("{rows} 66")), is(Primary, Source::Sql, false));
        assert_eq!(wanted(&format!("{rows} 74")), is(Replica, Source::Sql, false));
        let tcp = |send: &str, rest: &str| {
            wanted(&format!(
                "option tcp-check\ntcp-check connect port 8008\ntcp-check {send}\n{rest}"
            ))
        };
        let by_text = "send \"GET /primary HTTP/1.0\\r\\n\\r\\n\"";
        assert_eq!(tcp(by_text, "tcp-check expect string 200"), is(Primary, Source::Http, false));
        assert_eq!(tcp(by_text, "tcp-check expect string 503"), None);
        let by_hex = "send-binary 474554202f7265706c69636120485454502f312e300d0a0d0a";
        assert_eq!(tcp(by_hex, "tcp-check expect string 200"), is(Replica, Source::Http, false));
        let script = "option external-check\nexternal-check command /usr/local/bin/is_primary";
        assert_eq!(wanted(script), is(Primary, Source::Script, false));
        let body = "option httpchk GET /patroni\nhttp-check expect rstring '\"role\": *\"(primary|master)\"'";
        assert_eq!(wanted(body), is(Primary, Source::Http, false));
        let standby = "option httpchk GET /standby-leader";
        assert_eq!(wanted(standby), is(Role::StandbyLeader, Source::Http, false));
        let two = "option httpchk\nhttp-check send meth GET uri /primary\n\
                   http-check connect port 6432\nhttp-check send meth GET uri /healthz";
        assert_eq!(wanted(two), is(Primary, Source::Http, false));
        let agent = "server a 10.0.0.1:5432 check agent-check agent-port 5555 agent-send";
        let asked = format!("{agent} \"read n1\\n\"");
        assert_eq!(wanted(&asked), is(Replica, Source::AgentSend, true));
    }

    #[test]
    fn groups_have_a_primary_each() {
        let several = |name: &str, servers: [&str; 4]| {
            let servers =
                servers.map(|name| format!(" server {name} 10.0.0.1:5432 check\n")).concat();
            let text = format!("global\nlisten {name}\n mode tcp\n{servers}");
            let file = File::read(&text);
            has_several_primaries(&Model::new(&file).proxies[0])
        };
        assert!(several("x", ["g1-a", "g1-b", "g2-a", "g2-b"]));
        assert!(several("x", ["work1-1", "work1-2", "work2-1", "work2-2"]));
        assert!(several("pg_workers", ["a", "b", "c", "d"]));
        assert!(!several("x", ["dc1-pg1", "dc1-pg2", "dc2-pg1", "dc2-pg2"]));
        assert!(!several("x", ["g1", "g2", "g3", "g4"]));
        assert!(!several("primary", ["n1", "n2", "n3", "n4"]));
    }
}
