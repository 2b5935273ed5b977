//! ACLs and the conditions that name them.

use std::collections::{BTreeMap, BTreeSet};

use crate::lint::haproxy::Haproxy;
use crate::lint::haproxy::condition::{
    Alternative, Condition, Count, Of, expressions, is_predefined,
};
use crate::lint::haproxy::lines::{Line, Word};
use crate::lint::haproxy::model::Model;
use crate::lint::haproxy::proxy::Proxy;
use crate::lint::haproxy::roles::Wanted;
use crate::lint::haproxy::sections::Kind;
use crate::lint::haproxy::values::number;
use crate::lint::rule::{Findings, Look, rule};

rule! {
    /// The condition requires all servers to be UP.
    NBSRV_COUNTS_ALL = "nbsrv-counts-all", Error, Look::Haproxy(counts_all),
    title: "a condition that is true only while all servers are UP",
    costs: "The first server that is DOWN changes the result, in just the situation that the condition is made for: clients reach another backend, or none, while the other servers work.",
    remedy: "Require enough servers, not all of them: `nbsrv(BACKEND) ge 1`.",
}

rule! {
    /// The ACL is never true.
    ACL_CANNOT_MATCH = "acl-cannot-match", Error, Look::Haproxy(cannot_match),
    title: "a condition that can never be true",
    costs: "The rule with this condition never has an effect, and HAProxy does not report it.",
    remedy: "Correct the number or the port, or remove it.",
}

rule! {
    /// HAProxy refuses it.
    ACL_UNKNOWN = "acl-unknown", Error, Look::Haproxy(unknown),
    title: "a condition names an ACL that is not defined",
    costs: "HAProxy refuses the file.",
    remedy: "Define it above, in the same section, or correct its name.",
}

rule! {
    /// The ACL has no effect.
    ACL_UNUSED = "acl-unused", Note, Look::Haproxy(unused),
    title: "an ACL that no condition names",
    costs: "It has no effect. If it is meant as a guard, the guard is missing.",
    remedy: "Use it, or remove it.",
}

/// Directives whose lines may end with a condition.
const CONDITIONAL: [&str; 13] = [
    "force-persist",
    "http-after-response",
    "http-request",
    "http-response",
    "ignore-persist",
    "monitor",
    "redirect",
    "stats",
    "tcp-request",
    "tcp-response",
    "use-fcgi-app",
    "use-server",
    "use_backend",
];

fn is_conditional(line: &Line) -> bool {
    CONDITIONAL.contains(&line.word(0))
}

/// Returns an `nbsrv` in `words`, with its backend and the number of servers that it can count.
fn counted<'m, 'a>(
    words: &'a [Word],
    proxy: &Proxy<'a>,
    model: &'m Model<'a>,
) -> Option<(Count<'a>, &'m Proxy<'a>, u64)> {
    let count = Count::read(words)?;
    let name = if count.backend.is_empty() { proxy.name } else { count.backend };
    let backend = model.backend(name)?;
    Some((count, backend, backend.most_up()?))
}

/// Returns every expression of a proxy: those of its ACLs, and those in conditions.
fn written<'a>(proxy: &Proxy<'a>) -> Vec<&'a [Word]> {
    let acls = proxy.lines_of("acl").map(|line| line.from(2));
    let conditions = proxy.lines().filter(|line| is_conditional(line)).filter_map(Condition::of);
    let terms = conditions.flat_map(|condition| condition.alternatives.into_iter().flatten());
    let inline = terms.filter_map(|term| match term.of {
        Of::Written(words) => Some(words),
        Of::Named(_) => None,
    });
    acls.chain(inline).collect()
}

fn counts_all(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let model = &haproxy.model;
    // For web servers the condition on all servers may be intended.
    for proxy in model.proxies.iter().filter(|proxy| model.is_way_to_postgres(proxy)) {
        for words in written(proxy) {
            let Some((count, backend, most)) = counted(words, proxy, model) else { continue };
            // Of the servers that test for the primary, two being UP is a different problem.
            let is_of_roles = Wanted::is_primary(backend);
            if !is_of_roles && most >= 2 && count.holds(most) && !holds_below(&count, most) {
                findings.add(
                    words.first().map_or(proxy.head.place(), |word| word.place),
                    format!("true while all {most} servers are UP, and false with {}", most - 1),
                );
            }
        }
    }
}

/// Returns true if the condition is true for a count below `most`.
fn holds_below(count: &Count<'_>, most: u64) -> bool {
    // The result can change only next to the numbers that it names.
    let near = count
        .numbers
        .iter()
        .flat_map(|number| [number.saturating_sub(1), *number, number.saturating_add(1)]);
    near.chain([0]).any(|some| some < most && count.holds(some))
}

fn cannot_match(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    let model = &haproxy.model;
    for proxy in &model.proxies {
        for words in written(proxy) {
            let Some(first) = words.first() else { continue };
            if let Some((count, backend, most)) = counted(words, proxy, model)
                && !count.holds(most)
                && !holds_below(&count, most)
            {
                let message = format!("{} has only {most} servers to count", backend.title());
                findings.add(first.place, message);
            }
            if let Some(message) = other_port(words, proxy) {
                findings.add(first.place, message);
            }
        }
        for line in proxy.lines().filter(|line| is_conditional(line)) {
            contradictions(line, proxy, model, findings);
        }
    }
}

/// `dst_port 5000` in a proxy that listens on another port.
fn other_port(words: &[Word], proxy: &Proxy<'_>) -> Option<String> {
    let (fetch, rest) = words.split_first()?;
    let ports: Option<Vec<u64>> = rest.iter().map(|word| word.known().and_then(number)).collect();
    let ports = ports.filter(|ports| fetch.is("dst_port") && !ports.is_empty())?;
    if proxy.kind == Kind::Backend {
        return None;
    }
    let bound: Option<BTreeSet<u64>> =
        proxy.binds().map(|(_, address)| address?.port.map(u64::from)).collect();
    let bound = bound.filter(|bound| !bound.is_empty())?;
    // `set-dst-port` and transparent proxying change the client's destination.
    let is_plain = proxy.lines_of("bind").all(|line| {
        !line.words.iter().any(|word| word.is("transparent") || word.is("accept-proxy"))
    });
    let is_out = is_plain && !ports.iter().any(|port| bound.contains(port));
    is_out.then(|| format!("{} does not listen on that port", proxy.title()))
}

/// Reports two counts of the same backend that exclude each other, in one condition.
fn contradictions(line: &Line, proxy: &Proxy<'_>, model: &Model<'_>, findings: &mut Findings) {
    let Some(condition) = Condition::of(line) else { return };
    for alternative in &condition.alternatives {
        if let Some(backend) = contradicted(alternative, proxy, model) {
            let message =
                format!("no number of servers of `{backend}` matches all parts of the condition");
            findings.add(line, message);
        }
    }
}

fn contradicted<'a>(
    alternative: &Alternative<'a>,
    proxy: &Proxy<'a>,
    model: &Model<'_>,
) -> Option<&'a str> {
    let mut by_backend: BTreeMap<&str, Vec<(Count<'_>, bool)>> = BTreeMap::new();
    for term in alternative {
        // An ACL of several lines is true if one of them is. This check does not follow that.
        if let [words] = expressions(term, proxy).as_slice()
            && let Some(count) = Count::read(words)
        {
            by_backend.entry(count.backend).or_default().push((count, term.is_negated));
        }
    }
    let never = |name: &str, counts: &[(Count<'_>, bool)]| {
        let backend = model.backend(if name.is_empty() { proxy.name } else { name });
        let most = backend.and_then(Proxy::most_up).map(|most| most.min(1_000));
        let all = |some| counts.iter().all(|(count, negated)| count.holds(some) != *negated);
        counts.len() >= 2 && most.is_some_and(|most| !(0..=most).any(all))
    };
    by_backend.into_iter().find(|(name, counts)| never(name, counts)).map(|(name, _)| name)
}

fn unknown(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for proxy in &haproxy.model.proxies {
        let is_known = |name: &str| !proxy.acl(name).is_empty() || is_predefined(name);
        // The name of an ACL depends on the environment.
        let is_unclear = !proxy.acl("").is_empty();
        for line in proxy.lines().filter(|line| is_conditional(line)) {
            let Some(condition) = Condition::of(line) else { continue };
            for term in condition.terms() {
                let Of::Named(word) = term.of else { continue };
                let Some(name) = word.known() else { continue };
                let name = name.trim_start_matches('!');
                if !is_unclear && !is_known(name) {
                    findings
                        .add(word.place, format!("there is no ACL `{name}` in {}", proxy.title()));
                }
            }
        }
    }
}

fn unused(haproxy: &Haproxy<'_>, findings: &mut Findings) {
    for proxy in &haproxy.model.proxies {
        let words = proxy.lines().filter(|line| line.word(0) != "acl").flat_map(|line| &line.words);
        let words = words.filter_map(Word::known).map(|word| word.trim_start_matches('!'));
        // `acl(NAME,!NAME)` is a fetch that evaluates other ACLs.
        let fetched = proxy.lines_of("acl").map(|line| line.word(2));
        let fetched = fetched.filter_map(|fetch| fetch.strip_prefix("acl(")?.strip_suffix(')'));
        let fetched = fetched.flat_map(|names| names.split([',', '!']).map(str::trim));
        let named: BTreeSet<&str> = words.chain(fetched).collect();
        let mut seen = BTreeSet::new();
        for line in proxy.lines_of("acl") {
            let name = line.word(1);
            if !name.is_empty() && !named.contains(name) && seen.insert(name) {
                findings.add(
                    line.place_of(1),
                    format!("no condition in {} uses `{name}`", proxy.title()),
                );
            }
        }
    }
}
