//! The cluster as a picture: the services at the left, the members at the right, a line for each gate.
//!
//! Cards have fixed heights and even distances, so the ends of the lines are known without a browser.
//! The middle column is an SVG that stretches in width only.

use serde::Serialize;

use super::look::GateLook;
use super::texts::cut;
use crate::status::sentence::Level;

/// The heights of the cards: a service, a member with details, a member in one line.
const DOOR: u32 = 88;
const TALL: u32 = 88;
const FLAT: u32 = 46;

/// The smallest distance between two cards.
const GAP: u32 = 14;

/// The most members with details, and the most members at all. The others share one card.
const TALL_MAX: usize = 5;
const CARDS_MAX: usize = 12;

/// The longest label of a line, in characters.
const LABEL_CHARS_MAX: usize = 24;

/// A service, as input of the picture.
#[derive(Clone, Debug)]
pub struct Door {
    /// Its card.
    pub card: DoorCard,
}

/// A member, as input of the picture.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its card.
    pub card: MemberCard,
    /// It is shown even if many members are not.
    pub is_notable: bool,
    /// Its gate to each service, in the order of the services.
    pub gates: Vec<Option<PictureGate>>,
}

/// A gate, as input of the picture.
#[derive(Clone, Debug)]
pub struct PictureGate {
    /// How it looks.
    pub look: GateLook,
    /// The code of the reason why it is not open.
    pub code: Option<String>,
    /// The reason.
    pub reason: Option<String>,
    /// Bytes a second both ways, if known.
    pub bytes_per_second: Option<f64>,
    /// Sessions now.
    pub sessions: u64,
}

/// The picture.
#[derive(Debug, Serialize)]
pub struct Picture {
    /// The height in pixels.
    pub height: u32,
    /// The services.
    pub doors: Vec<DoorCard>,
    /// The members.
    pub members: Vec<MemberCard>,
    /// Member cards have one line.
    pub is_flat: bool,
    /// The members that have no card of their own.
    pub others: Option<Others>,
    /// The gates, the most important last, so that it is drawn on top.
    pub lines: Vec<Line>,
}

/// A service.
#[derive(Clone, Debug, Serialize)]
pub struct DoorCard {
    /// Its name.
    pub name: String,
    /// Its address.
    pub listen: Option<String>,
    /// The role that it requires.
    pub role: String,
    /// Sessions now.
    pub sessions: u64,
    /// The waiting clients in words; none without any.
    pub waiting: Option<String>,
    /// No member is open.
    pub is_shut: bool,
}

/// A member.
#[derive(Clone, Debug, Serialize)]
pub struct MemberCard {
    /// Its name.
    pub name: String,
    /// The class of its role.
    pub role_class: &'static str,
    /// Its role.
    pub role: String,
    /// Timeline, lag and load.
    pub facts: Vec<String>,
    /// Sessions now.
    pub sessions: u64,
    /// How urgent its trouble is.
    pub level: Level,
    /// Its trouble.
    pub trouble: Option<String>,
}

/// The members that share one card.
#[derive(Debug, Serialize)]
pub struct Others {
    /// How many they are.
    pub count: usize,
    /// Their sessions.
    pub sessions: u64,
}

/// A gate.
#[derive(Debug, Serialize)]
pub struct Line {
    /// The path in a box that is 100 wide.
    pub path: String,
    /// The width in pixels.
    pub width: String,
    /// How it looks.
    pub look: GateLook,
    /// Where it ends at the right.
    pub end: u32,
    /// The reason, if it matters.
    pub label: Option<String>,
    /// The same in full, for a pointer.
    pub title: String,
}

/// The picture of `doors` and `places`.
pub fn draw(doors: &[Door], places: Vec<Place>) -> Picture {
    let (shown, rest) = choose(places);
    let is_flat = shown.len() > TALL_MAX;
    let card = if is_flat { FLAT } else { TALL };
    let cards = shown.len() + usize::from(!rest.is_empty());
    let height = needed(doors.len(), DOOR).max(needed(cards, card));
    let from = |number: usize| top(number, doors.len(), DOOR, height) + DOOR / 2;
    let mut lines = Vec::new();
    let everyone = shown.iter().map(|place| place.gates.clone()).chain(joined(&rest, doors.len()));
    for (place, gates) in everyone.enumerate() {
        for (door, gate) in
            gates.iter().enumerate().filter_map(|(n, gate)| Some((n, gate.as_ref()?)))
        {
            let end = top(place, cards, card, height) + port(door, doors.len(), card);
            let member = shown.get(place).map_or("other members", |place| place.card.name.as_str());
            let name = doors.get(door).map_or("", |door| door.card.name.as_str());
            lines.push(line(gate, from(door), end, &format!("{name} to {member}")));
        }
    }
    lines.sort_by_key(|line| importance(line.look));
    let others = (!rest.is_empty()).then(|| Others {
        count: rest.len(),
        sessions: rest.iter().map(|place| place.card.sessions).sum(),
    });
    let members = shown.into_iter().map(|place| place.card).collect();
    let doors = doors.iter().map(|door| door.card.clone()).collect();
    Picture { height, doors, members, is_flat, others, lines }
}

/// The members with a card, in their order, and the others.
fn choose(places: Vec<Place>) -> (Vec<Place>, Vec<Place>) {
    if places.len() <= CARDS_MAX {
        return (places, Vec::new());
    }
    let notable = places.iter().filter(|place| place.is_notable).count().min(CARDS_MAX - 1);
    let mut notable_left = notable;
    let mut plain_left = CARDS_MAX - 1 - notable;
    places.into_iter().partition(|place| {
        let left = if place.is_notable { &mut notable_left } else { &mut plain_left };
        let has_card = *left > 0;
        *left = left.saturating_sub(1);
        has_card
    })
}

/// The gates of members that share a card: open if one is open.
fn joined(rest: &[Place], doors: usize) -> Option<Vec<Option<PictureGate>>> {
    let join = |door: usize| {
        let gates: Vec<&PictureGate> =
            rest.iter().filter_map(|place| place.gates.get(door)?.as_ref()).collect();
        let best = gates.iter().copied().min_by_key(|gate| importance(gate.look))?;
        let open = gates.iter().copied().find(|gate| gate.look.is_open());
        let bytes: Vec<f64> = gates.iter().filter_map(|gate| gate.bytes_per_second).collect();
        Some(PictureGate {
            look: open.unwrap_or(best).look,
            code: None,
            reason: None,
            bytes_per_second: (!bytes.is_empty()).then(|| bytes.iter().sum()),
            sessions: gates.iter().map(|gate| gate.sessions).sum(),
        })
    };
    (!rest.is_empty()).then(|| (0..doors).map(join).collect())
}

fn importance(look: GateLook) -> u8 {
    match look {
        GateLook::Idle => 0,
        GateLook::Open => 1,
        GateLook::Marked => 2,
        GateLook::Probation => 3,
        GateLook::Draining => 4,
        GateLook::Shut => 5,
    }
}

fn line(gate: &PictureGate, start: u32, end: u32, what: &str) -> Line {
    // The card of the member has the sentence; at the line there is room for the code only.
    let code = gate.code.as_deref().filter(|_| gate.look.matters());
    let label = |code: &str| cut(&code.replace('_', " "), LABEL_CHARS_MAX);
    Line {
        path: format!("M0,{start} C45,{start} 50,{end} 100,{end}"),
        width: format!("{:.1}", width(gate)),
        look: gate.look,
        end,
        label: code.map(label),
        title: match &gate.reason {
            Some(reason) => format!("{what}: {}, {reason}", word(gate.look)),
            None => format!("{what}: {}, {} sessions", word(gate.look), gate.sessions),
        },
    }
}

fn word(look: GateLook) -> &'static str {
    match look {
        GateLook::Open | GateLook::Marked => "open",
        GateLook::Probation => "probation",
        GateLook::Draining => "draining",
        GateLook::Shut | GateLook::Idle => "shut",
    }
}

/// The width of a line: by the logarithm of the traffic, or of the sessions while the traffic is unknown.
fn width(gate: &PictureGate) -> f64 {
    if gate.look == GateLook::Idle {
        return 1.0;
    }
    let sessions = u32::try_from(gate.sessions).map_or(f64::from(u32::MAX), f64::from);
    let grown = match gate.bytes_per_second {
        // 100 B/s is thin, 100 MB/s is the widest.
        Some(bytes) if bytes.is_finite() => (bytes.max(0.0) / 100.0).max(1.0).log10() * 1.25,
        _ => (1.0 + sessions).log10() * 2.0,
    };
    2.0 + grown.clamp(0.0, 7.5)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn needed(cards: usize, height: u32) -> u32 {
    count(cards.max(1)).saturating_mul(height + GAP) + GAP
}

/// The top of a card in a column with even distances, as `justify-content: space-evenly` has them.
fn top(number: usize, cards: usize, height: u32, column: u32) -> u32 {
    let cards = count(cards.max(1));
    let free = column.saturating_sub(cards.saturating_mul(height));
    let number = count(number);
    (free.saturating_mul(number + 1) / (cards + 1)).saturating_add(number.saturating_mul(height))
}

/// Where the line of a service ends at a member's card.
fn port(door: usize, doors: usize, card: u32) -> u32 {
    card * (count(door) + 1) / (count(doors) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(name: &str) -> Door {
        Door {
            card: DoorCard {
                name: name.to_owned(),
                listen: None,
                role: "primary".to_owned(),
                sessions: 0,
                waiting: None,
                is_shut: false,
            },
        }
    }

    fn place(number: usize, look: GateLook) -> Place {
        let gate = PictureGate {
            look,
            code: Some("lag_bytes".to_owned()),
            reason: Some("why".to_owned()),
            bytes_per_second: None,
            sessions: 1,
        };
        Place {
            card: MemberCard {
                name: format!("n{number}"),
                role_class: "replica",
                role: "replica".to_owned(),
                facts: Vec::new(),
                sessions: 1,
                level: Level::Well,
                trouble: None,
            },
            is_notable: look.matters(),
            gates: vec![Some(gate)],
        }
    }

    #[test]
    fn a_line_ends_at_the_middle_of_its_cards() {
        let places = (1..=3).map(|n| place(n, GateLook::Open)).collect();
        let picture = draw(&[door("write")], places);
        assert_eq!(picture.height, 3 * (TALL + GAP) + GAP);
        let middle = picture.height / 2;
        assert_eq!(picture.lines[1].end, middle, "the second of three");
        assert!(picture.lines[1].path.starts_with(&format!("M0,{middle} ")));
    }

    #[test]
    fn of_many_members_those_with_trouble_have_cards_and_the_others_share_one() {
        let mut places: Vec<Place> = (0..63).map(|n| place(n, GateLook::Open)).collect();
        places.push(place(63, GateLook::Shut));
        let picture = draw(&[door("write")], places);
        assert_eq!(picture.members.len(), CARDS_MAX - 1);
        assert_eq!(picture.members.last().unwrap().name, "n63");
        let others = picture.others.unwrap();
        assert_eq!((others.count, others.sessions), (53, 53));
        assert_eq!(picture.lines.len(), CARDS_MAX);
        assert_eq!(picture.lines.last().unwrap().look, GateLook::Shut, "drawn on top");
    }

    #[test]
    fn a_reason_stands_at_the_line_only_if_it_matters() {
        for (look, has_label) in
            [(GateLook::Idle, false), (GateLook::Open, false), (GateLook::Draining, true)]
        {
            let picture = draw(&[door("write")], vec![place(1, look)]);
            let label = picture.lines[0].label.as_deref();
            assert_eq!(label, has_label.then_some("lag bytes"), "{look:?}");
            assert!(picture.lines[0].title.contains("why"));
        }
    }

    #[test]
    fn the_width_grows_with_the_traffic_and_is_bounded() {
        let of = |bytes| {
            width(&PictureGate {
                look: GateLook::Open,
                code: None,
                reason: None,
                bytes_per_second: Some(bytes),
                sessions: 0,
            })
        };
        assert!(of(0.0) < of(10_000.0) && of(10_000.0) < of(1e6));
        assert!(of(1e30) <= 9.5 && of(f64::NAN) >= 2.0 && of(-5.0) >= 2.0);
    }
}
