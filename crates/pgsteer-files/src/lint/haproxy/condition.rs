//! Conditions: the part after `if` and `unless`, with the ACLs that it names (configuration manual,
//! 7 "Using ACLs and fetching samples").

use super::lines::{Line, Word};
use super::proxy::Proxy;
use super::values::number;

/// HAProxy's predefined ACLs (configuration manual, 7.4 "Pre-defined ACLs").
pub const PREDEFINED: [&str; 20] = [
    "FALSE",
    "HTTP",
    "HTTP_1.0",
    "HTTP_1.1",
    "HTTP_2.0",
    "HTTP_3.0",
    "HTTP_CONTENT",
    "HTTP_URL_ABS",
    "HTTP_URL_SLASH",
    "HTTP_URL_STAR",
    "LOCALHOST",
    "METH_CONNECT",
    "METH_DELETE",
    "METH_GET",
    "METH_HEAD",
    "METH_OPTIONS",
    "METH_POST",
    "METH_PUT",
    "METH_TRACE",
    "RDP_COOKIE",
];
const PREDEFINED_TOO: [&str; 3] = ["REQ_CONTENT", "TRUE", "WAIT_END"];

/// Returns true if HAProxy defines this ACL.
pub fn is_predefined(name: &str) -> bool {
    PREDEFINED.contains(&name) || PREDEFINED_TOO.contains(&name)
}

/// One part of a condition: a name, or an expression in braces, optionally with a leading `!`.
#[derive(Clone, Debug)]
pub struct Term<'a> {
    /// It is negated.
    pub is_negated: bool,
    /// Its content.
    pub of: Of<'a>,
}

/// The content of a term.
#[derive(Clone, Debug)]
pub enum Of<'a> {
    /// The ACL of this name.
    Named(&'a Word),
    /// An expression: a sample fetch, and the words after it.
    Written(&'a [Word]),
}

/// Terms that all have to be true; `||` or `or` separates alternatives.
pub type Alternative<'a> = Vec<Term<'a>>;

/// The part after `if` or `unless` of a line.
#[derive(Clone, Debug)]
pub struct Condition<'a> {
    /// It begins with `unless`.
    pub is_unless: bool,
    /// One of these has to be true.
    pub alternatives: Vec<Alternative<'a>>,
}

impl<'a> Condition<'a> {
    /// Returns the condition of `line`, if any.
    pub fn of(line: &'a Line) -> Option<Condition<'a>> {
        let at = line.words.iter().position(|word| word.is("if") || word.is("unless"))?;
        let is_unless = line.word(at) == "unless";
        let mut alternatives = vec![Vec::new()];
        let mut rest = line.from(at + 1);
        let mut is_negated = false;
        while let Some((word, behind)) = rest.split_first() {
            rest = behind;
            match word.known().unwrap_or_default() {
                "!" => is_negated = !is_negated,
                "||" | "or" | "OR" => alternatives.push(Vec::new()),
                text => {
                    let bare = text.trim_start_matches('!');
                    is_negated ^= (text.len() - bare.len()) % 2 == 1;
                    let of = match bare {
                        "{" => {
                            let end = rest.iter().position(|word| word.is("}"));
                            let (inner, behind) = rest.split_at(end.unwrap_or(rest.len()));
                            rest = behind.split_first().map_or(&[], |(_, behind)| behind);
                            Of::Written(inner)
                        }
                        _ => Of::Named(word),
                    };
                    let is_negated = std::mem::take(&mut is_negated);
                    if let Some(terms) = alternatives.last_mut() {
                        terms.push(Term { is_negated, of });
                    }
                }
            }
        }
        Some(Condition { is_unless, alternatives })
    }

    /// Evaluates the condition with the known values of expressions from `value`; none if they do
    /// not decide it.
    pub fn comes_to(
        &self,
        proxy: &Proxy<'a>,
        value: impl Fn(&'a [Word]) -> Option<bool>,
    ) -> Option<bool> {
        let of_term = |term: &Term<'a>| {
            let is_true = match &term.of {
                Of::Named(word) if word.is("TRUE") => Some(true),
                Of::Named(word) if word.is("FALSE") => Some(false),
                // An ACL of several lines is true if one of them is.
                _ => match expressions(term, proxy) {
                    all if all.is_empty() => None,
                    all => any(all.into_iter().map(&value)),
                },
            };
            is_true.map(|is_true| is_true != term.is_negated)
        };
        // All terms are true if none is false.
        let all = |terms: &Alternative<'a>| {
            any(terms.iter().map(|term| of_term(term).map(|is_true| !is_true)))
                .map(|is_true| !is_true)
        };
        any(self.alternatives.iter().map(all)).map(|is_true| is_true != self.is_unless)
    }

    /// Returns all its terms.
    pub fn terms(&self) -> impl Iterator<Item = &Term<'a>> {
        self.alternatives.iter().flatten()
    }
}

/// Returns true if one of them is true; none if that is unknown.
fn any(all: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut any = Some(false);
    for it in all {
        match it {
            Some(true) => return Some(true),
            Some(false) => {}
            None => any = None,
        }
    }
    any
}

/// Returns the expressions of a term: its own, or those of the ACLs with its name in `proxy`.
pub fn expressions<'a>(term: &Term<'a>, proxy: &Proxy<'a>) -> Vec<&'a [Word]> {
    match &term.of {
        Of::Written(words) => vec![words],
        Of::Named(word) => {
            let name = word.known().unwrap_or_default().trim_start_matches('!');
            proxy.acl(name).iter().map(|line| line.from(2)).collect()
        }
    }
}

/// A comparison of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Equal to one of the numbers.
    Eq,
    /// Greater or equal.
    Ge,
    /// Greater.
    Gt,
    /// Less or equal.
    Le,
    /// Less.
    Lt,
}

/// `nbsrv(BACKEND) eq 1`: the number of servers that are UP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count<'a> {
    /// The backend; empty for the proxy itself.
    pub backend: &'a str,
    /// The comparison.
    pub compare: Compare,
    /// The numbers to compare with.
    pub numbers: Vec<u64>,
}

impl<'a> Count<'a> {
    /// Parses the words of an expression.
    pub fn read(words: &'a [Word]) -> Option<Count<'a>> {
        let (fetch, rest) = words.split_first()?;
        let fetch = fetch.known()?.strip_prefix("nbsrv")?;
        let backend = match fetch {
            "" => "",
            // A converter after a comma changes the number.
            fetch => {
                let inner = fetch.strip_prefix('(')?.strip_suffix(')')?.trim();
                (!inner.contains([')', ','])).then_some(inner)?
            }
        };
        let mut rest = rest.iter().map(|word| word.known().unwrap_or_default()).peekable();
        let mut compare = Compare::Eq;
        let mut numbers = Vec::new();
        while let Some(word) = rest.next() {
            match word {
                "-m" if rest.peek() == Some(&"int") => drop(rest.next()),
                "eq" => compare = Compare::Eq,
                "ge" => compare = Compare::Ge,
                "gt" => compare = Compare::Gt,
                "le" => compare = Compare::Le,
                "lt" => compare = Compare::Lt,
                word => numbers.push(number(word)?),
            }
        }
        (!numbers.is_empty()).then_some(Count { backend, compare, numbers })
    }

    /// Returns true if this count fulfils the condition.
    pub fn holds(&self, count: u64) -> bool {
        self.numbers.iter().any(|&number| match self.compare {
            Compare::Eq => count == number,
            Compare::Ge => count >= number,
            Compare::Gt => count > number,
            Compare::Le => count <= number,
            Compare::Lt => count < number,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::haproxy::lines::lines;

    fn count(text: &str) -> Option<(String, bool)> {
        let (lines, _) = lines(text, 1);
        let count = Count::read(&lines[0].words)?;
        Some((count.backend.to_owned(), count.holds(1) && !count.holds(2)))
    }

    #[test]
    fn counts_are_read() {
        assert_eq!(count("nbsrv(a) eq 1"), Some(("a".to_owned(), true)));
        assert_eq!(count("nbsrv(a) -m int eq 3"), Some(("a".to_owned(), false)));
        assert_eq!(count("nbsrv lt 2"), Some((String::new(), true)));
        assert_eq!(count("nbsrv(a) ge 1"), Some(("a".to_owned(), false)));
        assert_eq!(count("nbsrv(a) gt x"), None);
        assert_eq!(count("src 10.0.0.1"), None);
    }

    #[test]
    fn conditions_are_cut_into_terms() {
        let (lines, _) =
            lines("use_backend x if a !b { nbsrv(y) eq 1 } or ! c !{ src 10.0.0.1 }", 1);
        let condition = Condition::of(&lines[0]).unwrap();
        let counts: Vec<usize> = condition.alternatives.iter().map(Vec::len).collect();
        assert_eq!(counts, [3, 2]);
        let negated: Vec<bool> = condition.terms().map(|term| term.is_negated).collect();
        assert_eq!(negated, [false, true, false, true, true]);
    }
}
