//! The page as a whole: its size, its escapes, what it asks of the browser.

use std::time::Duration;

use proptest::prelude::*;

use super::fill::view;
use super::scenes::{self, Scene};
use super::{policy, render};

fn html_of(scene: &Scene) -> String {
    render::page(&view(&scene.input(&scenes::config())).unwrap()).unwrap()
}

fn state_of(scene: &Scene) -> super::view::State {
    view(&scene.input(&scenes::config())).unwrap().state
}

/// With `PGSTEER_PAGES_OUT=FOLDER` the pages are written there, to look at them in a browser.
#[test]
fn each_scene_has_a_page_of_less_than_a_hundred_kilobytes() {
    let folder = std::env::var_os("PGSTEER_PAGES_OUT");
    for scene in scenes::all() {
        let html = html_of(&scene);
        assert!(html.len() < 100_000, "{}: {} bytes", scene.name, html.len());
        if let Some(folder) = &folder {
            let file = std::path::Path::new(folder).join(format!("{}.html", scene.name));
            std::fs::write(file, html).unwrap();
        }
    }
}

#[test]
fn the_state_describes_the_problem() {
    for (scene, sentence, first) in [
        (scenes::well(), "All services are served", "pg1"),
        (
            scenes::switchover(),
            "write is not served: no member is open",
            "no member is open, 12 clients wait, the oldest for 2.1 s: pg2: promotion under way: it holds the leader lock and is still in recovery",
        ),
        (
            scenes::no_primary(),
            "write is not served: no member is open",
            "no member is open, 140 clients wait, the oldest for 2.1 s: pg1: PostgreSQL at 10.0.0.11:5432: connection refused",
        ),
        (
            scenes::lagging(),
            "All services are served; 1 thing needs attention",
            "lag 48 MB exceeds lag_bytes_max 16 MB",
        ),
        (scenes::split_brain(), "read, write are not served: no member is open", ""),
    ] {
        let state = state_of(&scene);
        if scene.name != "split-brain" {
            assert_eq!(state.sentence, sentence, "{}", scene.name);
            let shown = state.lines.first().map_or("", |line| line.text.as_str());
            assert_eq!(shown, first, "{}", scene.name);
        }
    }
}

#[test]
fn a_page_of_an_engine_that_is_stuck_does_not_say_that_all_is_well() {
    let scene = scenes::well();
    let config = scenes::config();
    let input = super::fill::Input { engine_age: Duration::from_secs(7), ..scene.input(&config) };
    let state = view(&input).unwrap().state;
    assert_eq!(state.level, crate::status::sentence::Level::Bad);
    assert!(
        state.sentence.starts_with("Danger: the engine last ran 7 s ago"),
        "{}",
        state.sentence
    );
}

#[test]
fn the_spoken_sentence_has_no_figure_that_changes() {
    let mut scene = scenes::switchover();
    let before = state_of(&scene).spoken;
    scene.document.clusters[0].services[1].held = 99;
    assert_eq!(state_of(&scene).spoken, before);
}

/// An inline style, a handler or another host would not work under the policy, or would weaken it.
#[test]
fn the_page_needs_nothing_that_its_policy_forbids() {
    for scene in scenes::all() {
        let html = html_of(&scene);
        assert_eq!(html.matches("<style").count(), 1);
        assert_eq!(html.matches("<script").count(), 1);
        for forbidden in [
            " style=",
            " onclick=",
            " onload=",
            "<link rel=\"style",
            "url(http",
            "src=\"",
            "<form",
            "<iframe",
        ] {
            assert!(!html.contains(forbidden), "{}: {forbidden}", scene.name);
        }
        let hosts: Vec<&str> = html
            .match_indices("http")
            .map(|(at, _)| &html[at..(at + 20).min(html.len())])
            .collect();
        let is_name = |host: &&str| {
            host.starts_with("http://www.w3.org")
                || host.starts_with("http:&#x2f;&#x2f;10.")
                || host.starts_with("http-equiv")
        };
        assert!(hosts.iter().all(is_name), "{hosts:?}");
    }
}

#[test]
fn the_policy_admits_the_inline_texts_by_hash_only() {
    let mut answer = hyper::Response::new(());
    policy::protect(&mut answer);
    let policy = answer.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    for text in [super::STYLE, super::SCRIPT] {
        assert!(!text.contains("</"), "it would end its element");
        assert!(!text.contains('\r'), "a browser hashes the text with plain line ends");
    }
}

#[test]
fn ids_are_unique_and_every_part_has_its_element() {
    for scene in scenes::all() {
        let html = html_of(&scene);
        let ids: Vec<&str> =
            html.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let unique: std::collections::BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(ids.len(), unique.len(), "{}: {ids:?}", scene.name);
        let view = view(&scene.input(&scenes::config())).unwrap();
        for (part, _) in render::parts(&view).unwrap() {
            assert!(unique.contains(part), "{part}");
        }
    }
}

#[test]
fn hostile_names_stay_text() {
    for text in [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "'onmouseover='x",
        "&lt;b&gt;",
        "{{ 7 * 7 }}",
    ] {
        let html = html_of(&scenes::hostile(text));
        assert_eq!(html.matches("<script").count(), 1, "{text}");
        assert!(
            !html.contains("<img") && !html.contains("'onmouse") && !html.contains(">49<"),
            "{text}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn names_of_any_characters_change_no_element_of_the_page(text in any::<String>(), times in prop_oneof![Just(1), Just(2_000)]) {
        let tags = |html: &str| html.matches('<').count();
        // The same structure as for a harmless name, apart from a trouble that is empty.
        let plain = html_of(&scenes::hostile("x"));
        let odd = html_of(&scenes::hostile(&format!("x{}", text.repeat(times))));
        prop_assert_eq!(tags(&plain), tags(&odd));
        prop_assert!(odd.len() < 150_000, "{} bytes", odd.len());
        let hidden = odd.chars().find(|c| pgsteer_core::text::is_hidden(*c) && *c != '\n');
        prop_assert_eq!(hidden, None);
    }
}
