//! What keys and answers change.

use super::*;
use crate::http::sample;

const SECOND: Duration = Duration::from_secs(1);

fn state() -> State {
    let mut state = State::default();
    state.receive(sample::document_of(&sample::snapshot()), SECOND);
    state
}

fn names(state: &State) -> Vec<&str> {
    state.members().iter().map(|member| member.name.as_str()).collect()
}

#[test]
fn an_answer_is_live_for_three_seconds_or_until_a_request_fails() {
    let mut state = State::default();
    assert_eq!(state.age(SECOND), Age::None);
    state.receive(sample::document_of(&sample::calm()), SECOND);
    assert_eq!(state.age(3 * SECOND), Age::Live);
    assert_eq!(state.age(4 * SECOND), Age::Stale(3 * SECOND));
    state.fail("connection refused");
    assert_eq!(state.age(2 * SECOND), Age::Stale(SECOND));
    assert!(state.document().is_some(), "the last answer stays");
    state.receive(sample::document_of(&sample::calm()), 5 * SECOND);
    assert_eq!((state.age(5 * SECOND), &state.error), (Age::Live, &None));
}

#[test]
fn a_paused_page_keeps_its_answer() {
    let mut state = state();
    state.is_paused = true;
    state.receive(sample::document_of(&sample::calm()), 2 * SECOND);
    state.fail("connection refused");
    assert_eq!(state.age(4 * SECOND), Age::Paused(3 * SECOND));
    assert_eq!(state.cluster().map(|cluster| cluster.paused), Some(true));
}

#[test]
fn members_are_sorted_and_the_order_of_equal_ones_is_by_name() {
    let mut state = state();
    assert_eq!(names(&state), ["n1", "n2", sample::HOSTILE]);
    for (sort, first) in [
        (Sort::Role, "n2"),
        (Sort::Lag, "n1"),
        (Sort::Sessions, "n2"),
        (Sort::Traffic, "n2"),
        (Sort::Load, "n2"),
    ] {
        state.sort = sort;
        assert_eq!(names(&state)[0], first, "{sort:?}");
    }
    let mut seen = vec![Sort::Name];
    while let Some(next) = seen.last().map(|sort| sort.next()).filter(|it| *it != Sort::Name) {
        seen.push(next);
    }
    assert_eq!(seen.len(), 6);
}

#[test]
fn the_filter_looks_at_names_roles_gates_and_reasons() {
    let mut state = state();
    for (filter, count) in
        [("N2", 1), ("replica", 2), ("promoting", 1), ("10.0.0.11", 1), ("zzz", 0)]
    {
        state.filter = filter.to_owned();
        assert_eq!(names(&state).len(), count, "{filter}");
    }
    state.filter.clear();
    (0..100).for_each(|_| state.type_filter('a'));
    assert_eq!(state.filter.len(), 40);
}

#[test]
fn the_selection_stays_on_its_member_in_any_order() {
    let mut state = state();
    state.select(1);
    assert_eq!(state.selected(Panel::Members), 1);
    state.sort = Sort::Sessions;
    assert_eq!(state.selected(Panel::Members), 0, "n2 has the most sessions");
    state.select(-5);
    state.select(100);
    assert_eq!(state.selected(Panel::Members), 2);
    state.filter = "no such member".to_owned();
    assert_eq!(state.selected(Panel::Members), 0);
    state.select(1);
    state.explain();
    assert_eq!(state.view, View::Overview, "there is nothing to explain");
}

#[test]
fn two_events_with_the_same_text_are_selected_one_after_the_other() {
    let mut document = sample::document_of(&sample::snapshot());
    let events = &mut document.clusters[0].events;
    let last = events.last().unwrap().clone();
    events.extend([last.clone(), last]);
    let mut state = State { focus: Panel::Events, ..State::default() };
    state.receive(document, SECOND);
    for row in 1..4 {
        state.select(1);
        assert_eq!(state.selected(Panel::Events), row);
    }
}

#[test]
fn changes_and_events_are_shown_newest_first_without_the_steps_of_a_change() {
    let mut document = sample::document_of(&sample::snapshot());
    let cluster = &mut document.clusters[0];
    let step = Event { at: cluster.changes[0].at, ..cluster.events[4].clone() };
    assert_eq!(step.kind, "gate");
    cluster.events.push(step);
    let mut state = State::default();
    state.receive(document, SECOND);
    let all = state.happenings();
    assert_eq!(all.len(), 7, "six events and a change");
    assert!(all.windows(2).all(|pair| pair[0].at() >= pair[1].at()));
}
