//! A template instead of the file that is rendered from it.

use crate::lint::location::Location;
use crate::lint::rule::{Finding, Findings, Look, rule};

rule! {
    /// The text is not a configuration yet.
    TEMPLATE_NOT_RENDERED = "template-not-rendered", Error, Look::Text,
    title: "the file is a template, not the configuration that is rendered from it",
    costs: "HAProxy, PostgreSQL and pgsteer refuse it. Lint cannot judge what the template renders, so it reports nothing else about the file.",
    remedy: "Run lint on the result: the file on the machine, or the one that confd, consul-template, Ansible or Helm writes.",
}

/// The start and end marks of template expressions: Jinja, Go, Mustache, Helm; ERB.
const MARKS: [(&str, &str); 3] = [("{{", "}}"), ("{%", "%}"), ("<%", "%>")];

/// Returns the finding for a text that is a template; none for other texts.
pub fn judge(text: &str) -> Option<Vec<Finding>> {
    let mut marked =
        (1..).zip(text.lines()).filter_map(|(number, line)| Some((number, mark(line)?)));
    let (line, (column, mark)) = marked.next()?;
    let more = marked.count();
    let others = match more {
        0 => String::new(),
        1 => "; there is another such line".to_owned(),
        more => format!("; there are {more} more such lines"),
    };
    let mut findings = Findings::of(&TEMPLATE_NOT_RENDERED);
    let place = Location { line, column, column_end: column + mark.len() };
    findings.add(place, format!("`{mark}` starts an expression of a template{others}"));
    Some(findings.into_all())
}

/// Returns the first mark of a line that is not a comment, and its column.
fn mark(line: &str) -> Option<(usize, &'static str)> {
    let code = line.split('#').next().unwrap_or_default();
    MARKS.into_iter().find_map(|(open, close)| {
        let at = code.find(open)?;
        let behind = code.get(at + open.len()..)?;
        // `{%[src]}` and `{%ci}` are HAProxy's log formats.
        let is_format =
            open == "{%" && !behind.trim_start_matches(['-', '+']).starts_with([' ', '\t']);
        if is_format {
            return None;
        }
        // An expression may continue on the next line, but then only one word follows its mark.
        let is_one = behind.contains(close) || behind.split_whitespace().count() <= 1;
        is_one.then(|| (code.get(..at).unwrap_or_default().chars().count() + 1, open))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_template(text: &str) -> bool {
        judge(text).is_some()
    }

    #[test]
    fn templates_are_distinguished_from_similar_text() {
        assert!(is_template(
            "listen x\n{% for host in hosts %}\n server {{ host }} 1.1.1.1:1\n{% endfor %}\n"
        ));
        assert!(is_template("{{- range .Members }}\n"));
        assert!(is_template("<% @hosts.each do |host| %>\n"));
        assert!(!is_template("# {{ made by a template }}\nlisten x\n"));
        assert!(!is_template("tcp-request content reject unless { nbsrv(x) eq 1 }\n"));
        assert!(!is_template("log-format '{%[src]}'\nlog-format '{\"a\":{\"b\":\"%ci\"}}'\n"));
        assert!(!is_template("acl x path_reg ^/a{2}$\n"));
    }
}
