//! Writes the page and its parts by templates, which are compiled once.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Error, UndefinedBehavior};
use serde::Serialize;

use super::view::View;
use super::{SCRIPT, STYLE, policy};

macro_rules! parts {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("parts/", $name, ".html")))),*]
    };
}

/// The parts of the page. Each is the content of the element of that id.
const PARTS: &[(&str, &str)] = parts![
    "top", "state", "picture", "services", "members", "changes", "timeline", "gates", "around",
    "config",
];

const PAGE: &str = include_str!("page.html");
const MACROS: &str = include_str!("parts/macros.html");

/// The compiled templates, or why they do not compile.
static TEMPLATES: LazyLock<Result<Environment<'static>, Error>> = LazyLock::new(compile);

fn compile() -> Result<Environment<'static>, Error> {
    let mut templates = Environment::new();
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true);
    templates.set_syntax(syntax.build()?);
    templates.set_auto_escape_callback(|_| AutoEscape::Html);
    templates.add_template("macros", MACROS)?;
    templates.add_template("page", PAGE)?;
    for (name, source) in PARTS {
        templates.add_template(name, source)?;
    }
    Ok(templates)
}

/// Why the page cannot be written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RenderError {
    /// A template cannot be filled in. The text has its name and line.
    #[error("{0}")]
    Template(String),
    /// There is nothing to show.
    #[error("no cluster is configured")]
    NoCluster,
}

impl From<&Error> for RenderError {
    fn from(error: &Error) -> RenderError {
        RenderError::Template(format!("{error:#}"))
    }
}

fn fill(name: &str, context: &impl Serialize) -> Result<String, RenderError> {
    let templates = TEMPLATES.as_ref().map_err(RenderError::from)?;
    let filled = templates.get_template(name).and_then(|template| template.render(Serde(context)));
    filled.map_err(|error| RenderError::from(&error))
}

/// The parts of `view` by their ids.
///
/// # Errors
/// A template that cannot be filled in.
pub fn parts(view: &View) -> Result<Vec<(&'static str, String)>, RenderError> {
    PARTS.iter().map(|(name, _)| Ok((*name, fill(name, view)?))).collect()
}

/// The whole page of `view`.
///
/// # Errors
/// A template that cannot be filled in.
pub fn page(view: &View) -> Result<String, RenderError> {
    #[derive(Serialize)]
    struct Page<'a> {
        view: &'a View,
        parts: BTreeMap<&'static str, String>,
        range: &'static str,
        edition: &'static str,
        style: &'static str,
        script: &'static str,
    }
    let page = Page {
        view,
        parts: parts(view)?.into_iter().collect(),
        range: view.range,
        edition: policy::edition(),
        style: STYLE,
        script: SCRIPT,
    };
    fill("page", &page)
}
