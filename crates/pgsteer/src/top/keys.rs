//! Keys, and how they change what is shown. Pure.

use ratatui::crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};

use super::state::{Panel, State, View};

/// The rows that Page Up and Page Down move.
const PAGE: usize = 10;

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Letter(char),
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Tab,
    BackTab,
    Enter,
    Escape,
    Backspace,
    /// Ctrl-C.
    Interrupt,
}

/// What to do after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Go on.
    Continue,
    /// End the command.
    Quit,
}

/// The key of an event of the terminal, if it is one that has a meaning.
pub fn read(event: &Event) -> Option<Key> {
    let Event::Key(key) = event else { return None };
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    let has_other = key.modifiers.intersects(KeyModifiers::ALT | KeyModifiers::SUPER);
    match key.code {
        KeyCode::Char('c') if is_control => Some(Key::Interrupt),
        KeyCode::Char(_) if is_control || has_other => None,
        KeyCode::Char(letter) => Some(Key::Letter(letter)),
        KeyCode::Up => Some(Key::Up),
        KeyCode::Down => Some(Key::Down),
        KeyCode::PageUp => Some(Key::PageUp),
        KeyCode::PageDown => Some(Key::PageDown),
        KeyCode::Home => Some(Key::Home),
        KeyCode::End => Some(Key::End),
        KeyCode::Tab => Some(Key::Tab),
        KeyCode::BackTab => Some(Key::BackTab),
        KeyCode::Enter => Some(Key::Enter),
        KeyCode::Esc => Some(Key::Escape),
        KeyCode::Backspace => Some(Key::Backspace),
        _ => None,
    }
}

/// Handles a key.
pub fn press(state: &mut State, key: Key) -> Step {
    if key == Key::Interrupt {
        return Step::Quit;
    }
    if state.is_typing {
        type_key(state, key);
        return Step::Continue;
    }
    match key {
        Key::Letter('q') => return Step::Quit,
        Key::Letter('p') => state.is_paused = !state.is_paused,
        Key::Letter('?') => toggle(state, View::Help),
        Key::Letter('e') => toggle(state, View::Events),
        Key::Letter('S') => state.show_sessions(),
        _ if state.view == View::Overview => press_in_overview(state, key),
        _ => press_in_text(state, key),
    }
    Step::Continue
}

fn toggle(state: &mut State, view: View) {
    let next = if state.view == view { View::Overview } else { view };
    state.show(next);
}

fn type_key(state: &mut State, key: Key) {
    match key {
        Key::Letter(letter) => state.type_filter(letter),
        Key::Backspace => drop(state.filter.pop()),
        Key::Enter => state.is_typing = false,
        Key::Escape => {
            state.is_typing = false;
            state.filter.clear();
        }
        _ => {}
    }
}

fn press_in_overview(state: &mut State, key: Key) {
    let page = isize::try_from(PAGE).unwrap_or(isize::MAX);
    match key {
        Key::Up | Key::Letter('k') => state.select(-1),
        Key::Down | Key::Letter('j') => state.select(1),
        Key::PageUp => state.select(-page),
        Key::PageDown => state.select(page),
        Key::Home | Key::Letter('g') => state.select(isize::MIN),
        Key::End | Key::Letter('G') => state.select(isize::MAX),
        Key::Tab => state.focus_next(false),
        Key::BackTab => state.focus_next(true),
        Key::Enter => state.explain(),
        Key::Letter('s') => state.sort = state.sort.next(),
        Key::Letter('/') => {
            state.focus = Panel::Members;
            state.is_typing = true;
        }
        Key::Escape => state.filter.clear(),
        _ => {}
    }
}

fn press_in_text(state: &mut State, key: Key) {
    match key {
        Key::Up | Key::Letter('k') => state.scroll = state.scroll.saturating_sub(1),
        Key::Down | Key::Letter('j') => state.scroll = state.scroll.saturating_add(1),
        Key::PageUp => state.scroll = state.scroll.saturating_sub(PAGE),
        Key::PageDown => state.scroll = state.scroll.saturating_add(PAGE),
        Key::Home | Key::Letter('g') => state.scroll = 0,
        // The page is cut to its length when it is drawn.
        Key::End | Key::Letter('G') => state.scroll = usize::MAX,
        Key::Enter | Key::Escape => state.show(View::Overview),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::crossterm::event::KeyEvent;

    use super::super::state::{Sort, Subject};
    use super::*;
    use crate::http::sample;

    fn state() -> State {
        let mut state = State::default();
        state.receive(sample::document_of(&sample::snapshot()), Duration::from_secs(1));
        state
    }

    fn after(keys: &[Key]) -> State {
        let mut state = state();
        for key in keys {
            assert_eq!(press(&mut state, *key), Step::Continue, "{key:?}");
        }
        state
    }

    fn letters(text: &str) -> Vec<Key> {
        text.chars().map(Key::Letter).collect()
    }

    #[test]
    fn q_and_ctrl_c_quit_and_q_in_the_filter_is_a_letter() {
        assert_eq!(press(&mut state(), Key::Letter('q')), Step::Quit);
        let mut state = after(&letters("/q"));
        assert_eq!(state.filter, "q");
        assert_eq!(press(&mut state, Key::Interrupt), Step::Quit);
    }

    #[test]
    fn arrows_and_letters_select_and_tab_moves_the_focus() {
        let state = after(&[Key::Down, Key::Letter('j'), Key::Letter('k')]);
        assert_eq!(state.selected(Panel::Members), 1);
        assert_eq!(after(&[Key::Tab]).focus, Panel::Events);
        assert_eq!(after(&[Key::BackTab]).focus, Panel::Services);
        assert_eq!(after(&[Key::Tab, Key::Tab, Key::Tab]).focus, Panel::Members);
    }

    #[test]
    fn enter_explains_the_selected_row_and_enter_or_escape_leads_back() {
        let explained = |keys: &[Key]| after(keys).view;
        let member = View::Explain(Subject::Member("n2".to_owned()));
        assert_eq!(explained(&[Key::Down, Key::Enter]), member);
        let service = View::Explain(Subject::Service("read".to_owned()));
        assert_eq!(explained(&[Key::BackTab, Key::Enter]), service);
        for back in [Key::Enter, Key::Escape] {
            assert_eq!(explained(&[Key::Enter, Key::Down, back]), View::Overview);
        }
        let event = explained(&[Key::Tab, Key::Enter]);
        assert!(matches!(event, View::Explain(Subject::Happening(..))), "{event:?}");
    }

    #[test]
    fn s_shows_the_sessions_of_the_selected_or_explained_member() {
        let sessions = View::Sessions("n2".to_owned());
        assert_eq!(after(&[Key::Down, Key::Letter('S')]).view, sessions);
        let explained = after(&[Key::Down, Key::Enter, Key::Letter('S')]);
        assert_eq!(explained.view, sessions);
        assert_eq!(explained.wants_sessions_of(), Some("n2"));
        assert_eq!(after(&[Key::Down, Key::Letter('S'), Key::Escape]).view, View::Overview);
        let paused = after(&[Key::Letter('S'), Key::Letter('p')]);
        assert_eq!(paused.wants_sessions_of(), None);
        let of_a_service = after(&[Key::BackTab, Key::Letter('S')]);
        assert_eq!(of_a_service.view, View::Overview, "a service is no member");
    }

    #[test]
    fn the_filter_is_typed_kept_and_cleared() {
        let kept = after(&[letters("/n22"), vec![Key::Backspace, Key::Enter]].concat());
        assert_eq!((kept.filter.as_str(), kept.is_typing), ("n2", false));
        let cleared = after(&[letters("/n2"), vec![Key::Escape]].concat());
        assert_eq!((cleared.filter.as_str(), cleared.is_typing), ("", false));
        let later = after(&[letters("/n2"), vec![Key::Enter, Key::Escape]].concat());
        assert_eq!(later.filter, "");
    }

    #[test]
    fn letters_sort_pause_and_switch_the_view() {
        assert_eq!(after(&letters("s")).sort, Sort::Role);
        assert!(after(&letters("p")).is_paused && !after(&letters("pp")).is_paused);
        assert_eq!(after(&letters("e")).view, View::Events);
        assert_eq!(after(&letters("ee")).view, View::Overview);
        assert_eq!(after(&letters("e?")).view, View::Help);
        let scrolled = after(&[letters("ejjj"), vec![Key::Up, Key::PageDown]].concat());
        assert_eq!(scrolled.scroll, 12);
        assert_eq!(after(&letters("ejj?")).scroll, 0, "another view begins at its top");
    }

    #[test]
    fn keys_without_a_page_do_nothing_harmful() {
        let mut state = State::default();
        for key in [Key::Down, Key::Up, Key::End, Key::Enter, Key::Tab, Key::Enter, Key::Tab] {
            assert_eq!(press(&mut state, key), Step::Continue);
        }
        assert_eq!(state.view, View::Overview);
    }

    #[test]
    fn keys_are_read_from_events_of_the_terminal() {
        let key = |code, modifiers| read(&Event::Key(KeyEvent::new(code, modifiers)));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Interrupt));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Key::Letter('q')));
        assert_eq!(key(KeyCode::Char('G'), KeyModifiers::SHIFT), Some(Key::Letter('G')));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::ALT), None);
        assert_eq!(key(KeyCode::Esc, KeyModifiers::NONE), Some(Key::Escape));
        assert_eq!(read(&Event::Resize(80, 24)), None);
    }
}
