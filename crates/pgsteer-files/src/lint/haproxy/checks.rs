//! The health checks of a proxy: their requests, and their ports.

use super::lines::{Line, Word};
use super::proxy::Proxy;
use super::server::Server;
use super::values::number;

/// The kind of health check of a proxy.
#[derive(Clone, Debug)]
pub enum Check<'a> {
    /// Opens a connection.
    Connect,
    /// `option httpchk`.
    Http {
        /// The option.
        line: &'a Line,
    },
    /// `option tcp-check` with its own rules.
    Tcp(Vec<&'a Line>),
    /// `option pgsql-check`: sends a startup packet to PostgreSQL.
    Pgsql,
    /// `option external-check`: runs a program on this machine.
    Script {
        /// The option.
        line: &'a Line,
        /// The program; empty if the environment or another file decides.
        command: &'a str,
    },
    /// Another kind of check.
    Other,
    /// No check in this file; another file may have one.
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
    /// Returns the check of `proxy`.
    pub fn of(proxy: &Proxy<'a>) -> Check<'a> {
        let chosen = OPTIONS.into_iter().filter_map(|name| Some((name, proxy.option(name)?)));
        // Each option replaces the one before. A later line has priority, because `defaults` come
        // first.
        match chosen.max_by_key(|(_, line)| line.number) {
            None if proxy.is_piece => Check::Unknown,
            None => Check::Connect,
            Some(("httpchk", line)) => Check::Http { line },
            Some(("tcp-check", _)) => match proxy.nearest("tcp-check") {
                rules if rules.iter().all(|rule| rule.begins(&["tcp-check", "connect"])) => {
                    Check::Connect
                }
                rules => Check::Tcp(rules),
            },
            Some(("pgsql-check", _)) => Check::Pgsql,
            Some(("external-check", line)) => {
                let command = proxy.last(&["external-check", "command"]);
                Check::Script { line, command: command.map_or("", |line| line.word(2)) }
            }
            Some(_) => Check::Other,
        }
    }
}

/// A request of an HTTP check, by `option httpchk`, `http-check send` or `tcp-check send`.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Its line.
    pub line: &'a Line,
    /// `GET`, `OPTIONS`, ...; empty if the environment decides.
    pub method: String,
    /// The path without the query; empty if the environment decides.
    pub path: String,
}

impl<'a> Request<'a> {
    fn new(line: &'a Line, method: &str, path: &str) -> Request<'a> {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        Request { line, method: method.to_owned(), path: path.to_owned() }
    }
}

/// Returns the requests that the check of `proxy` sends, in order. A check without requests has no
/// entry.
pub fn requests<'a>(proxy: &Proxy<'a>) -> Vec<Request<'a>> {
    match Check::of(proxy) {
        Check::Http { line } => {
            let sends = proxy.nearest("http-check").into_iter().filter(|it| it.word(1) == "send");
            let sent: Vec<Request<'a>> = sends.filter_map(sent).collect();
            if sent.is_empty() { vec![of_option(line)] } else { sent }
        }
        Check::Tcp(rules) => rules.into_iter().filter_map(in_bytes).collect(),
        _ => Vec::new(),
    }
}

fn known<'a>(word: Option<&'a Word>, default: &'a str) -> &'a str {
    word.map_or(default, |word| word.known().unwrap_or_default())
}

/// `option httpchk URI` or `option httpchk METHOD URI ...`.
fn of_option(line: &Line) -> Request<'_> {
    match line.from(2) {
        [] => Request::new(line, "OPTIONS", "/"),
        [path] => Request::new(line, "OPTIONS", known(Some(path), "")),
        [method, path, ..] => Request::new(line, known(Some(method), ""), known(Some(path), "")),
    }
}

/// `http-check send meth METHOD uri URI`. Without `uri` it extends the request of the option.
fn sent(line: &Line) -> Option<Request<'_>> {
    let behind = |names: [&str; 2]| {
        let at = line.words.iter().position(|word| names.iter().any(|name| word.is(name)))?;
        line.words.get(at + 1)
    };
    let path = behind(["uri", "uri-lf"])?;
    Some(Request::new(line, known(behind(["meth", "meth"]), "OPTIONS"), known(Some(path), "")))
}

/// A request that a tcp-check sends as text or in hexadecimal.
fn in_bytes(line: &Line) -> Option<Request<'_>> {
    let text = text_sent(line)?;
    let mut words = text.split_ascii_whitespace();
    let method = words.next().filter(|word| METHODS.contains(word))?;
    let path = words.next().filter(|path| path.starts_with('/'))?;
    Some(Request::new(line, method, path))
}

/// Returns the text that a tcp-check rule sends, if it is text.
pub fn text_sent(line: &Line) -> Option<String> {
    match line.word(1) {
        "send" | "send-lf" => Some(line.words.get(2)?.known()?.to_owned()),
        "send-binary" => {
            let bytes = hex(line.words.get(2))?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        _ => None,
    }
}

/// HTTP's methods.
pub const METHODS: [&str; 9] =
    ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];

/// Returns the ports that the check of `server` connects to; empty if they are unknown.
pub fn checked_ports(proxy: &Proxy<'_>, server: &Server<'_>) -> Vec<u16> {
    let rules = match Check::of(proxy) {
        Check::Http { .. } => proxy.nearest("http-check"),
        Check::Tcp(rules) => rules,
        // A check that only connects may do so by rules too.
        _ if proxy.option("tcp-check").is_some() => proxy.nearest("tcp-check"),
        _ => Vec::new(),
    };
    let connects: Vec<&Line> = rules.into_iter().filter(|rule| rule.word(1) == "connect").collect();
    if connects.is_empty() {
        return server.check_port().into_iter().collect();
    }
    let port = |rule: &&Line| match rule.words.iter().position(|word| word.is("port")) {
        Some(at) => number(rule.word(at + 1)).and_then(|port| u16::try_from(port).ok()),
        None if rule.words.iter().any(|word| word.is("addr")) => None,
        None => server.check_port(),
    };
    connects.iter().filter_map(port).collect()
}

/// Returns the rules for the answer to the check of `proxy`.
pub fn expectations<'a>(proxy: &Proxy<'a>) -> Vec<Expectation<'a>> {
    let rules = match Check::of(proxy) {
        Check::Http { .. } => proxy.nearest("http-check"),
        Check::Tcp(rules) => rules,
        _ => Vec::new(),
    };
    rules.into_iter().filter(|rule| rule.word(1) == "expect").map(Expectation::of).collect()
}

/// One `http-check expect` or `tcp-check expect`.
#[derive(Clone, Copy, Debug)]
pub struct Expectation<'a> {
    /// Its line.
    pub line: &'a Line,
    /// `status`, `rstatus`, `string`, `rstring`, `binary`, ...; empty if it is none of them.
    pub kind: &'a str,
    /// It is fulfilled by an answer that does not match.
    pub is_negated: bool,
    /// The expected value; empty if the environment decides.
    pub pattern: &'a str,
}

const KINDS: [&str; 9] = [
    "status",
    "rstatus",
    "string",
    "rstring",
    "string-lf",
    "binary",
    "rbinary",
    "binary-lf",
    "fhdr",
];

impl<'a> Expectation<'a> {
    fn of(line: &'a Line) -> Expectation<'a> {
        let is_kind = |word: &Word| {
            let text = word.known().unwrap_or_default().trim_start_matches('!');
            KINDS.contains(&text)
        };
        let Some(at) = line.words.iter().position(is_kind) else {
            return Expectation { line, kind: "", is_negated: false, pattern: "" };
        };
        let word = line.word(at);
        let kind = word.trim_start_matches('!');
        let is_negated = word.len() != kind.len() || at > 0 && line.word(at - 1) == "!";
        Expectation { line, kind, is_negated, pattern: line.word(at + 1) }
    }

    /// Returns the status codes from 100 to 599 that fulfil it; none if it does not test the
    /// status.
    pub fn statuses(&self) -> Option<Vec<u64>> {
        let matches: Box<dyn Fn(u64) -> Option<bool>> = match self.kind {
            "status" => Box::new(|code| {
                let mut ranges = self.pattern.split(',').map(|range| {
                    let (from, to) = range.split_once('-').unwrap_or((range, range));
                    Some((number(from)?, number(to)?))
                });
                ranges.try_fold(false, |any, range| {
                    let (from, to) = range?;
                    Some(any || (from..=to).contains(&code))
                })
            }),
            // `^2`, `^(2|3)[0-9][0-9]`, `(2|3)..`: matched by their first digits.
            "rstatus" => Box::new(|code| {
                let pattern = self.pattern.trim_start_matches('^').trim_end_matches('$');
                starts_so(pattern, &code.to_string())
            }),
            _ => return None,
        };
        (100..600)
            .map(|code| matches(code).map(|is_match| (code, is_match != self.is_negated)))
            .collect::<Option<Vec<_>>>()
            .map(|all| all.into_iter().filter(|(_, is_ok)| *is_ok).map(|(code, _)| code).collect())
    }
}

/// Returns true if `code` begins as a simple pattern requires; none for other patterns.
fn starts_so(pattern: &str, code: &str) -> Option<bool> {
    let (heads, rest) = match pattern.strip_prefix(['(', '[']) {
        Some(inner) => {
            let (inner, rest) = inner.split_once([')', ']'])?;
            let is_set = pattern.starts_with('[');
            let heads = match is_set {
                true => set_of(inner)?,
                false => inner.split('|').map(str::to_owned).collect(),
            };
            (heads, rest)
        }
        None => {
            let end = pattern.find(|c: char| !c.is_ascii_digit()).unwrap_or(pattern.len());
            let (head, rest) = pattern.split_at(end);
            (vec![head.to_owned()], rest)
        }
    };
    let is_digits = |head: &String| !head.is_empty() && head.bytes().all(|c| c.is_ascii_digit());
    let rest_is_any = rest.chars().all(|c| ".*+[]0-9\\d{}2?".contains(c));
    let is_simple = heads.iter().all(is_digits) && rest_is_any;
    is_simple.then(|| heads.iter().any(|head| code.starts_with(head.as_str())))
}

/// Parses `23` or `2-3` from a pair of brackets.
fn set_of(inner: &str) -> Option<Vec<String>> {
    if let Some((from, to)) = inner.split_once('-') {
        let (from, to) = (number(from)?, number(to)?);
        return (from <= to && to < 10).then(|| (from..=to).map(|it| it.to_string()).collect());
    }
    Some(inner.chars().map(String::from).collect())
}

/// Parses the words of a line after `at` as hexadecimal, if they are.
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
    use crate::lint::haproxy::lines::lines;

    fn accepts(rule: &str) -> Option<Vec<u64>> {
        let (lines, _) = lines(&format!("http-check expect {rule}\n"), 1);
        let statuses = Expectation::of(&lines[0]).statuses()?;
        Some([200, 206, 302, 404, 503].into_iter().filter(|it| statuses.contains(it)).collect())
    }

    #[test]
    fn expected_statuses_are_read() {
        assert_eq!(accepts("status 200"), Some(vec![200]));
        assert_eq!(accepts("status 200-399"), Some(vec![200, 206, 302]));
        assert_eq!(accepts("status 200,404"), Some(vec![200, 404]));
        assert_eq!(accepts("! status 503"), Some(vec![200, 206, 302, 404]));
        assert_eq!(accepts("!status 503"), Some(vec![200, 206, 302, 404]));
        assert_eq!(accepts("rstatus ^2"), Some(vec![200, 206]));
        assert_eq!(accepts("rstatus (2|3)[0-9][0-9]"), Some(vec![200, 206, 302]));
        assert_eq!(accepts("rstatus ^[23].."), Some(vec![200, 206, 302]));
        assert_eq!(accepts("min-recv 5 status 206"), Some(vec![206]));
        assert_eq!(accepts("rstatus ^.*$"), None);
        assert_eq!(accepts("string primary"), None);
    }
}
