//! The templates, and the code that fills them in.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

use super::escape;
use super::refusal::Refusal;

macro_rules! templates {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("templates/", $name)))),*]
    };
}

/// Every built-in template, by its name.
const TEMPLATES: &[(&str, &str)] = templates![
    "around/ansible/handlers.yml",
    "around/ansible/site.yml",
    "around/ansible/tasks.yml",
    "around/check_role.sql",
    "around/clients.md",
    "around/consul.json",
    "around/grafana.json",
    "around/keepalived.conf",
    "around/pg_hba.conf",
    "around/pgbouncer.ini",
    "around/prometheus-rules.yml",
    "around/prometheus-scrape.yml",
    "haproxy/agent-bypass.cfg",
    "haproxy/agent.cfg",
    "haproxy/base.cfg",
    "haproxy/guard.cfg",
    "haproxy/httpchk.cfg",
    "haproxy/parts.cfg",
    "haproxy/pgsteer.cfg",
    "haproxy/push.cfg",
    "haproxy/redirect.cfg",
    "haproxy/sql.cfg",
];

/// Fills in the template `name`, or the operator's own instead. An undefined variable is an error.
/// Values are not escaped automatically: the template selects a filter for that.
///
/// # Errors
/// A template that cannot be parsed or filled in.
pub fn fill(name: &str, own: Option<&str>, context: &impl Serialize) -> Result<String, Refusal> {
    let mut paper = Environment::new();
    paper.set_undefined_behavior(UndefinedBehavior::Strict);
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true);
    paper.set_syntax(syntax.build().map_err(|error| wrong(&error))?);
    paper.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    paper.add_filter("haproxy", |text: &str| escape::haproxy(text));
    paper.add_filter("hba", |text: &str| escape::hba(text));
    paper.add_filter("sql_name", |text: &str| escape::sql_name(text));
    paper.add_filter("json", |text: &str| escape::json(text));
    paper.add_filter("uri", |text: &str| escape::uri(text));
    paper.add_filter("promql", |text: &str| escape::promql(text));
    paper.add_filter("comment", |text: &str| escape::comment(text));
    paper.add_filter("semicolons", |text: &str| escape::semicolons(text));
    paper.add_filter("block", |text: &str| escape::block(text));
    paper.add_filter("time", |ms: u64| escape::time(ms));
    for (name, source) in TEMPLATES {
        paper.add_template(name, source).map_err(|error| wrong(&error))?;
    }
    let template = match own {
        Some(source) => paper.template_from_named_str("the template", source),
        None => paper.get_template(name),
    };
    let filled = template.and_then(|template| template.render(Serde(context)));
    filled.map_err(|error| wrong(&error))
}

fn wrong(error: &minijinja::Error) -> Refusal {
    let mut text = error.to_string();
    if let Some(cause) = std::error::Error::source(error) {
        text = format!("{text}: {cause}");
    }
    Refusal::Template(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Known {
        known: &'static str,
    }

    #[test]
    fn what_is_not_defined_is_an_error_that_names_its_line() {
        let own = |text| fill("haproxy/base.cfg", Some(text), &Known { known: "a$" });
        assert_eq!(own("{{ known|haproxy }}\n").unwrap(), "\"a\\$\"\n");
        let Err(Refusal::Template(text)) = own("a\n{{ unknown }}") else { panic!() };
        assert!(text.contains("undefined") && text.contains(":2"), "{text}");
        assert!(own("{% if %}").is_err());
    }
}
