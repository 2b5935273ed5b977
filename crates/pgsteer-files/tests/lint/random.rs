//! Nonsense, and real files with something changed: never a panic.

use proptest::prelude::*;

use pgsteer_files::lint::show::{Looked, json, sarif, text};
use pgsteer_files::lint::{Kind, Options, lint, rules};

/// Everything that lint does with a text.
fn all(source: &str) {
    let options = Options { max_connections: Some(100), ..Options::default() };
    for kind in Kind::ALL {
        let outcome = lint(kind, source, &options);
        let looked = [Looked::new("x".to_owned(), source.to_owned(), outcome)];
        let _ = (text(&looked), json(&looked), sarif(&looked, "0"));
    }
}

/// The examples of all pages, one after the other.
fn real() -> String {
    rules::rules().map(|rule| rule.page).collect()
}

/// A word or a piece of one, as they stand in such files.
fn word() -> impl Strategy<Value = String> {
    let real: Vec<String> = real().split_whitespace().map(str::to_owned).collect();
    prop_oneof![
        8 => proptest::sample::select(real),
        1 => "[ -~]{0,12}",
        1 => Just("\n".to_owned()),
        1 => "\\PC{0,4}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_text_is_judged(source in "(\\PC|[\n\t\"'\\\\$#]){0,400}") {
        all(&source);
    }

    #[test]
    fn any_heap_of_words_is_judged(words in proptest::collection::vec(word(), 0..200)) {
        let source: String = words.iter().map(|word| format!("{word} ")).collect();
        all(&format!("listen x\n{source}"));
    }

    #[test]
    fn a_real_file_with_something_cut_out_is_judged(
        page in proptest::sample::select(rules::rules().collect::<Vec<_>>()),
        at in 0..4_000_usize,
        length in 0..60_usize,
    ) {
        let mut chars: Vec<char> = page.page.chars().collect();
        let start = at % chars.len();
        let end = (start + length).min(chars.len());
        chars.drain(start..end);
        all(&chars.into_iter().collect::<String>());
    }
}

/// What grows with the square of a file's length would take minutes here.
#[test]
fn a_large_file_takes_no_time() {
    let servers: String =
        (0..5_000).map(|n| format!(" server n{n} 10.0.0.1:5432 check port 8008\n")).collect();
    let proxies: String = (0..5_000)
        .map(|n| format!("listen p{n}\n bind :1\n use_backend p{n} if {{ nbsrv(p1) eq 1 }}\n"))
        .collect();
    let hba: String = (0..5_000).map(|n| format!("host db{n} all 10.0.0.1/32 md5\n")).collect();
    let acls: String =
        (0..5_000).map(|n| format!(" acl a{n} src 10.0.0.1\n use_backend b if a{n}\n")).collect();
    for text in [format!("listen x\n{servers}"), format!("listen x\n{acls}{servers}"), proxies] {
        assert!(lint(Kind::Haproxy, &text, &Options::default()).is_ok());
    }
    assert!(lint(Kind::PgHba, &hba, &Options::default()).is_ok());
}
