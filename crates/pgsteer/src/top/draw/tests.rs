//! Pages as they look in terminals of several sizes.

use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::super::keys::{Key, press};
use super::super::state::Sessions;
use super::*;
use crate::control::protocol::{SessionLine, SessionsAnswer};
use crate::http::sample;
use crate::status::table::Ink;

const LOOK: Look = Look { ink: Ink::Plain, is_unicode: true };

const NOW: Duration = Duration::from_secs(100);

/// The sample after half a minute of readings.
fn state() -> State {
    let mut state = State::default();
    for second in 70..=100_u32 {
        let mut document = sample::document_of(&sample::snapshot());
        for service in &mut document.clusters[0].services {
            let factor = f64::from(second % 10);
            service.traffic.bytes_out_per_second *= factor;
            service.traffic.new_sessions_per_second = factor / 2.0;
        }
        state.receive(document, Duration::from_secs(second.into()));
    }
    state
}

fn calm() -> State {
    let mut state = State::default();
    state.receive(sample::document_of(&sample::calm()), NOW);
    state
}

fn many(count: usize) -> State {
    let mut document = sample::document_of(&sample::calm());
    let cluster = &mut document.clusters[0];
    let one = cluster.members[1].clone();
    cluster.members = (0..count)
        .map(|number| crate::status::document::Member {
            name: format!("pg{number:02}"),
            ..one.clone()
        })
        .collect();
    let mut state = State::default();
    state.receive(document, NOW);
    state
}

fn terminal(state: &State, look: Look, now: Duration, [cells, lines]: [u16; 2]) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(cells, lines)).unwrap();
    terminal.draw(|frame| _ = draw(frame, state, look, now)).unwrap();
    terminal.backend().clone()
}

fn page(state: &State, size: [u16; 2]) -> String {
    terminal(state, LOOK, NOW, size).to_string()
}

fn pressed(mut state: State, keys: &[Key]) -> State {
    for key in keys {
        press(&mut state, *key);
    }
    state
}

/// The sample with names as they are in practice.
fn documented() -> State {
    let mut state = State::default();
    for second in 0..=100_u32 {
        let mut document = sample::document_of(&sample::snapshot());
        let cluster = &mut document.clusters[0];
        (cluster.paused, cluster.no_failover) = (false, false);
        cluster.url_troubles.clear();
        cluster.events.retain(|event| !event.text.contains(['\\', '"']));
        cluster.members[2].name = "n3".to_owned();
        for (service, factor) in cluster.services.iter_mut().zip([1.0, 0.0]) {
            let wave = factor * f64::from(30_u32.abs_diff(second % 60));
            service.traffic.bytes_out_per_second = 90_000.0 * wave;
            service.traffic.new_sessions_per_second = wave;
            service.held =
                if factor == 0.0 && second > 95 { u64::from(second - 95) * 2 } else { 0 };
        }
        state.receive(document, Duration::from_secs(second.into()));
    }
    state
}

/// The picture in docs/status.md.
#[test]
fn the_documentation_shows_the_page_as_it_is() {
    let page = terminal(&documented(), LOOK, NOW, [80, 24]).to_string();
    let lines = page.lines().map(|line| format!("    {}", line.trim_matches('"').trim_end()));
    let picture: String = lines.map(|line| format!("{}\n", line.trim_end())).collect();
    let documentation = include_str!("../../../../../docs/status.md");
    assert!(documentation.contains(&picture), "docs/status.md has to contain\n{picture}");
}

#[test]
fn the_middle_of_a_switchover_in_80x24() {
    insta::assert_snapshot!(page(&state(), [80, 24]));
}

#[test]
fn the_middle_of_a_switchover_in_120x40() {
    insta::assert_snapshot!(page(&state(), [120, 40]));
}

#[test]
fn the_middle_of_a_switchover_in_40x15() {
    insta::assert_snapshot!(page(&state(), [40, 15]));
}

fn session(number: u32, user: Option<&str>) -> SessionLine {
    SessionLine {
        client: Some(format!("10.0.0.{number}:4711")),
        user: user.map(str::to_owned),
        database: user.map(|_| "shop".to_owned()),
        member: "n2".to_owned(),
        service: "read".to_owned(),
        since: "2026-07-04T12:00:00.250Z".to_owned(),
        age_seconds: 3_725.0,
        idle_seconds: 0.4,
        bytes_in: 12_345,
        bytes_out: 9_876_543,
        tls: user.is_none(),
    }
}

/// The page of the sessions at n2.
fn sessions_page(answer: Result<SessionsAnswer, String>, size: [u16; 2]) -> String {
    let mut state = pressed(state(), &[Key::Down, Key::Letter('S')]);
    assert!(page(&state, size).contains("sessions at n2: asking"));
    state.receive_sessions(Sessions { member: "n1".to_owned(), answer: Err("old".to_owned()) });
    assert!(page(&state, size).contains("asking"), "the answer is about another member");
    state.receive_sessions(Sessions { member: "n2".to_owned(), answer });
    page(&state, size)
}

#[test]
fn the_sessions_at_a_member() {
    let sessions = vec![session(7, Some("app")), session(8, None)];
    let answer = SessionsAnswer { sessions, omitted: 3 };
    insta::assert_snapshot!(sessions_page(Ok(answer.clone()), [80, 12]));
    let narrow = sessions_page(Ok(answer), [40, 12]);
    assert!(narrow.contains("10.0.0.8:4711") && !narrow.contains("SERVICE"), "{narrow}");
}

#[test]
fn sessions_that_are_not_known_have_the_reason() {
    let page = sessions_page(Err("there is no socket /run/x.sock".to_owned()), [80, 12]);
    assert!(page.contains("not known") && page.contains("/run/x.sock"), "{page}");
}

#[test]
fn a_terminal_without_unicode_gets_ascii() {
    let look = Look { is_unicode: false, ..LOOK };
    let page = terminal(&state(), look, NOW, [80, 24]).to_string();
    assert!(page.is_ascii(), "{page}");
    insta::assert_snapshot!(page);
}

#[test]
fn the_last_answer_stays_with_its_age_and_the_error() {
    let mut state = calm();
    state.fail("cannot ask http://10.0.0.20:7000: connection refused");
    let now = NOW + Duration::from_secs(12);
    insta::assert_snapshot!(terminal(&state, LOOK, now, [80, 24]).to_string());
}

#[test]
fn before_the_first_answer_there_is_the_error_alone() {
    let mut state = State::default();
    assert!(page(&state, [80, 24]).contains("asking"));
    state.fail("cannot ask http://10.0.0.20:7000: connection refused");
    insta::assert_snapshot!(page(&state, [80, 8]));
}

#[test]
fn a_cluster_without_members_or_services_is_drawn() {
    let mut document = sample::document_of(&sample::calm());
    document.clusters[0].members.clear();
    document.clusters[0].services.clear();
    document.clusters[0].events.clear();
    document.clusters[0].changes.clear();
    let mut state = State::default();
    state.receive(document.clone(), NOW);
    insta::assert_snapshot!(page(&state, [80, 12]));
    document.clusters.clear();
    state.receive(document, NOW);
    page(&state, [80, 24]);
}

#[test]
fn a_member_is_explained_with_its_gates_reasons_and_advice() {
    insta::assert_snapshot!(page(&pressed(state(), &[Key::Down, Key::Enter]), [80, 30]));
}

#[test]
fn a_service_is_explained_with_the_gates_of_all_members() {
    insta::assert_snapshot!(page(
        &pressed(state(), &[Key::BackTab, Key::Down, Key::Enter]),
        [80, 30]
    ));
}

#[test]
fn a_change_is_explained() {
    let keys = [Key::Tab, Key::End, Key::Up, Key::Enter];
    insta::assert_snapshot!(page(&pressed(state(), &keys), [80, 12]));
}

#[test]
fn the_keys_fit_into_80x24() {
    insta::assert_snapshot!(page(&pressed(state(), &[Key::Letter('?')]), [80, 24]));
}

#[test]
fn the_events_are_scrolled_to_their_end_and_not_beyond() {
    let mut state = pressed(state(), &[Key::Letter('e'), Key::End]);
    let mut terminal = Terminal::new(TestBackend::new(60, 12)).unwrap();
    let mut scroll_max = 0;
    terminal.draw(|frame| scroll_max = draw(frame, &state, LOOK, NOW)).unwrap();
    assert!(scroll_max > 0);
    assert!(terminal.backend().to_string().contains("member n1 found"), "the oldest is last");
    state.scroll = scroll_max;
    assert_eq!(page(&state, [60, 12]), terminal.backend().to_string());
}

#[test]
fn of_many_members_the_selected_one_is_shown() {
    let state = pressed(many(64), &[Key::PageDown, Key::PageDown, Key::PageDown]);
    let page = page(&state, [80, 24]);
    assert!(page.contains(">pg30"), "{page}");
    assert!(page.contains("of 64"), "{page}");
}

#[test]
fn a_live_and_well_page_is_green_and_a_stale_one_is_not() {
    let colours = |state: &State, now| {
        let look = Look { ink: Ink::Colour, is_unicode: true };
        let backend = terminal(state, look, now, [80, 24]);
        let cells = backend.buffer().content();
        (cells[79].fg, cells[80].fg)
    };
    let mut document = sample::document_of(&sample::calm());
    let cluster = &mut document.clusters[0];
    cluster.members.clear();
    cluster.url_troubles.clear();
    cluster.other_clusters.clear();
    cluster.services.iter_mut().for_each(|service| service.held = 0);
    let mut state = State::default();
    state.receive(document, NOW);
    assert_eq!(colours(&state, NOW), (Color::Green, Color::Green));
    assert_eq!(colours(&state, 2 * NOW), (Color::Red, Color::Reset));
}

#[test]
fn hostile_texts_control_no_terminal() {
    let forged = "\u{1b}[2J\u{202e}\n\u{7}".repeat(50);
    let mut document = sample::document_of(&sample::snapshot());
    document.version = forged.clone();
    let cluster = &mut document.clusters[0];
    cluster.name = forged.clone();
    cluster.services[0].name = forged.clone();
    cluster.events[0].text = forged.clone();
    cluster.changes[0].text = forged.clone();
    for member in &mut cluster.members {
        (member.name, member.role) = (forged.clone(), forged.clone());
        let gate = member.services["write"].clone();
        member.services.insert(forged.clone(), gate);
    }
    let mut state = State::default();
    state.receive(document, NOW);
    state.fail(&forged);
    for keys in [vec![], vec![Key::Enter], vec![Key::Letter('e')], vec![Key::Tab, Key::Enter]] {
        let mut now = State::default();
        std::mem::swap(&mut now, &mut state);
        state = pressed(now, &keys);
        let page = page(&state, [100, 40]);
        assert!(!page.contains(|c| c != '\n' && pgsteer_core::text::is_hidden(c)), "{page:?}");
        state.show(View::Overview);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_size_of_terminal_is_drawn(cells in 1_u16..160, lines in 1_u16..60, view in 0..4_usize) {
        let keys = [vec![], vec![Key::Enter], vec![Key::Letter('e')], vec![Key::Letter('?')]];
        for state in [state(), many(64), State::default()] {
            page(&pressed(state, &keys[view]), [cells, lines]);
        }
    }

    /// A number of the table of members is either shown as a whole or not at all.
    #[test]
    fn no_figure_is_cut(cells in 20_u16..160) {
        let page = page(&many(1), [cells, 24]);
        for (figure, part) in [("150kB", "150"), ("340ms", "340")] {
            let lines = page.lines().filter(|line| line.contains("pg00"));
            for line in lines {
                prop_assert_eq!(line.contains(part), line.contains(figure), "{}", line);
            }
        }
    }
}
