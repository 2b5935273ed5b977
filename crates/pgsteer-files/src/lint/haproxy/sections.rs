//! The sections of a file, and the `defaults` that each of them inherits from.

use std::collections::BTreeMap;

use super::lines::{Fault, Line, lines};
use crate::lint::Source;

/// The maximum length of a chain of `defaults` by `from`.
const FROM_MAX: usize = 32;

/// The kind of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Settings of the process.
    Global,
    /// Settings for the sections after it.
    Defaults,
    /// A listener for clients.
    Frontend,
    /// A group of servers.
    Backend,
    /// Both in one.
    Listen,
    /// Any other kind: resolvers, userlist, peers, ...
    Other,
}

/// Sections without traffic.
pub const OTHERS: [&str; 16] = [
    "acme",
    "cache",
    "crt-store",
    "fcgi-app",
    "healthcheck",
    "http-errors",
    "log-forward",
    "log-profile",
    "mailers",
    "namespace_list",
    "peers",
    "program",
    "resolvers",
    "ring",
    "traces",
    "userlist",
];

impl Kind {
    /// Returns the kind of section that this keyword begins.
    pub fn of(word: &str) -> Option<Kind> {
        match word {
            "global" => Some(Kind::Global),
            "defaults" => Some(Kind::Defaults),
            "frontend" => Some(Kind::Frontend),
            "backend" => Some(Kind::Backend),
            "listen" => Some(Kind::Listen),
            other => OTHERS.contains(&other).then_some(Kind::Other),
        }
    }

    /// Returns true if it carries traffic.
    pub const fn is_proxy(self) -> bool {
        matches!(self, Kind::Frontend | Kind::Backend | Kind::Listen)
    }
}

/// One section.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its kind.
    pub kind: Kind,
    /// Its first line.
    pub head: Line,
    /// Its other lines.
    pub body: Vec<Line>,
    /// The `defaults` that it inherits from; always an earlier section.
    parent: Option<usize>,
    /// Positions in the body, by the first keyword of the line.
    by_word: BTreeMap<String, Vec<usize>>,
}

impl Section {
    /// Its name; empty if it has none, or if the environment decides.
    pub fn name(&self) -> &str {
        match self.head.word(1) {
            "from" if self.kind == Kind::Defaults => "",
            name => name,
        }
    }

    /// The lines that begin with this keyword.
    pub fn lines_of(&self, word: &str) -> impl DoubleEndedIterator<Item = &Line> {
        let places = self.by_word.get(word).into_iter().flatten();
        places.filter_map(|at| self.body.get(*at))
    }

    fn push(&mut self, line: Line) {
        let places = self.by_word.entry(line.word(0).to_owned()).or_default();
        places.push(self.body.len());
        self.body.push(line);
    }

    /// Returns the name of the `defaults` after `from`, if it is given.
    fn from(&self) -> Option<&str> {
        let at = self.head.words.iter().position(|word| word.is("from"))?;
        self.head.words.get(at + 1).and_then(|word| word.known())
    }
}

/// A configuration, split into sections: one file, or several that HAProxy reads in order. The line
/// numbers continue from one file to the next.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// The names of the files, each with the number of its first line.
    files: Vec<(String, usize)>,
    /// The sections in order.
    pub sections: Vec<Section>,
    /// Lines before the first section.
    pub strays: Vec<Line>,
    /// Lines that cannot be parsed.
    pub faults: Vec<Fault>,
    /// Some of those begin a section, which is unknown then.
    pub has_broken_heads: bool,
}

impl File {
    /// Parses a text.
    pub fn read(text: &str) -> File {
        File::join(&[Source { name: "", text }])
    }

    /// Parses several texts as HAProxy does with several `-f`: `defaults` apply to the later files,
    /// and each file begins a new section.
    pub fn join(sources: &[Source<'_>]) -> File {
        let mut file = File::default();
        let mut first = 1;
        for source in sources {
            file.files.push((source.name.to_owned(), first));
            file.append(source.text, first);
            first += source.text.lines().count();
        }
        file
    }

    /// Returns the file of a line, by its index, and the line's number there.
    pub fn origin(&self, number: usize) -> (usize, usize) {
        let at = self.files.iter().rposition(|(_, first)| *first <= number).unwrap_or(0);
        let first = self.files.get(at).map_or(1, |(_, first)| *first);
        (at, number - first + 1)
    }

    /// Returns the number of a line for a message.
    pub fn line_shown(&self, number: usize) -> String {
        let (at, number) = self.origin(number);
        match (self.files.as_slice(), self.files.get(at)) {
            ([_, _, ..], Some((name, _))) => format!("line {number} of {name}"),
            _ => format!("line {number}"),
        }
    }

    fn append(&mut self, text: &str, first: usize) {
        let (lines, faults) = lines(text, first);
        let heads = faults.iter().filter(|fault| Kind::of(&fault.begins).is_some());
        let mut heads =
            heads.map(|fault| fault.place.line).collect::<Vec<_>>().into_iter().peekable();
        self.has_broken_heads |= heads.peek().is_some();
        self.faults.extend(faults);
        let mut depth = 0_usize;
        let sections_before = self.sections.len();
        for mut line in lines {
            // `.if` and similar words are for the preprocessor. Both branches are checked.
            match line.word(0) {
                ".if" => depth += 1,
                ".endif" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if line.word(0).starts_with('.') {
                continue;
            }
            line.is_conditional = depth > 0;
            // A section with an unparsable first line is not checked.
            while let Some(number) = heads.next_if(|number| *number < line.number) {
                let head = Line { number, words: Vec::new(), is_conditional: false };
                self.open(Kind::Other, head);
            }
            let own = self.sections.len() > sections_before;
            match (Kind::of(line.word(0)), self.sections.last_mut().filter(|_| own)) {
                (Some(kind), _) => self.open(kind, line),
                (None, Some(section)) => section.push(line),
                (None, None) => self.strays.push(line),
            }
        }
    }

    fn open(&mut self, kind: Kind, head: Line) {
        let mut section =
            Section { kind, head, body: Vec::new(), parent: None, by_word: BTreeMap::new() };
        section.parent = match (kind, section.from()) {
            (Kind::Global | Kind::Other, _) | (Kind::Defaults, None) => None,
            (_, Some(name)) => self.defaults(|section| section.name() == name),
            (_, None) => self.defaults(|_| true),
        };
        self.sections.push(section);
    }

    /// Returns the last `defaults` so far that matches.
    fn defaults(&self, is_wanted: impl Fn(&Section) -> bool) -> Option<usize> {
        let is_wanted = |section: &Section| section.kind == Kind::Defaults && is_wanted(section);
        self.sections.iter().rposition(is_wanted)
    }

    /// Returns the section, and the `defaults` that it inherits from, nearest first.
    pub fn chain<'a>(&'a self, section: &'a Section) -> Vec<&'a Section> {
        let parent = |section: &&'a Section| section.parent.and_then(|at| self.sections.get(at));
        std::iter::successors(Some(section), parent).take(FROM_MAX).collect()
    }

    /// Returns true if it is a piece of a configuration: `defaults` in another file may set what
    /// its sections do not set. If it has its own `defaults`, only those apply.
    pub fn is_piece(&self) -> bool {
        self.has_broken_heads || !self.has(Kind::Global) && !self.has(Kind::Defaults)
    }

    /// Returns true if it has all sections. Without `global`, at least that one is in another file.
    pub fn has_all_sections(&self) -> bool {
        self.has(Kind::Global) && !self.has_broken_heads
    }

    /// Returns true if the file has a section of this kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.sections.iter().any(|section| section.kind == kind)
    }

    /// Returns the last line of `global` that begins so.
    pub fn global(&self, word: &str) -> Option<&Line> {
        let globals = self.sections.iter().filter(|section| section.kind == Kind::Global);
        globals.flat_map(|section| section.lines_of(word)).last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_inherits_from_the_last_defaults_or_from_the_one_it_names() {
        let file = File::read(
            "defaults a\n timeout client 1s\ndefaults b from a\n mode tcp\nlisten x\n bind :1\n\
             listen y from a\ndefaults\nlisten z\n",
        );
        let chain = |name: &str| -> Vec<usize> {
            let section = file.sections.iter().find(|section| section.name() == name).unwrap();
            file.chain(section).iter().map(|section| section.head.number).collect()
        };
        assert_eq!(chain("x"), [5, 3, 1]);
        assert_eq!(chain("y"), [7, 1]);
        assert_eq!(chain("z"), [9, 8]);
    }

    #[test]
    fn with_global_or_defaults_a_file_is_no_piece() {
        let parsed = |text: &str| {
            let file = File::read(text);
            (file.is_piece(), file.has_all_sections())
        };
        assert_eq!(parsed("listen x\n"), (true, false));
        assert_eq!(parsed("defaults\nlisten x\n"), (false, false));
        assert_eq!(parsed("global\nlisten x\n"), (false, true));
        assert_eq!(parsed("global\ndefaults\nlisten x \"y\n"), (true, false));
    }

    #[test]
    fn a_chain_of_defaults_has_an_end() {
        let mut text = String::from("defaults d0\n");
        (1..100).for_each(|n| text.push_str(&format!("defaults d{n} from d{}\n", n - 1)));
        text.push_str("listen x\n");
        let file = File::read(&text);
        assert_eq!(file.chain(file.sections.last().unwrap()).len(), FROM_MAX);
    }
}
