//! `[cluster]`: the cluster as a whole, and the source of its members.

use std::time::Duration;

use pgsteer_core::identity::Identity;
use pgsteer_core::names::{ClusterName, MemberName};
use pgsteer_core::settings::{
    ClusterConfig, EtcdConfig, Here, Membership, SplitBrain, StateDirectory,
};

use super::{check, etcd, members, patroni};
use crate::conflict::Conflict;
use crate::error::ConfigErrors;
use crate::field::Field;
use crate::key::{Command, Flag, Key, SectionKeys};
use crate::kinds::{Choice, Text};
use crate::origin::Origin;
use crate::plain;
use crate::range::Seconds;
use crate::written::Draft;

/// The section.
pub static KEYS: SectionKeys = SectionKeys {
    name: SECTION,
    help: "The cluster as a whole.",
    keys: &[&NAME, &PATRONI_LOSS_GRACE, &SILENCE, &LOCAL, &STATE_DIRECTORY, &SPLIT_BRAIN],
    at_restart: false,
};

const SECTION: &str = "cluster";

static NAME: Key<Text<ClusterName>> =
    Key::new(SECTION, "name", Text::new("name", |text| Ok(ClusterName::new(text)?)))
        .example("\"main\"")
        .unset("Patroni's scope, and `main` until that is known")
        .help("The name in pages, in logs and in the label `cluster` of the metrics.");

static PATRONI_LOSS_GRACE: Key<Seconds> = Key::new(
    SECTION,
    "patroni_loss_grace_seconds",
    Seconds::within(0, 86_400_000).or(60_000),
)
.help(
    "While the Patroni of the primary does not answer, but PostgreSQL does and no other member is \
     a primary, writes continue for this time.",
);

static SILENCE: Key<Seconds> =
    Key::new(SECTION, "silence_seconds", Seconds::within(1_000, 3_600_000).or(30_000)).help(
        "Sessions to a member are ended if no source has had an answer from it for this time.",
    );

/// The local member.
pub static LOCAL: Key<Text<MemberName>> =
    Key::new(SECTION, "local", Text::new("name", |text| Ok(MemberName::new(text)?)))
        .example("\"n1\"")
        .unset("the only member with an address of this machine")
        .help("The member that runs on this machine, for the agent and the health pages.")
        .flags(&[
            Flag::new(Command::Run, "--local", "NAME")
                .help("The member that runs on this machine [default: found by its address]"),
            Flag::new(Command::Agent, "--local", "NAME").help(
                "The member that runs on this machine [default: found by -h, or by its address]",
            ),
        ]);

static STATE_DIRECTORY: Key<Text<StateDirectory>> = Key::new(
    SECTION,
    "state_directory",
    Text::new("path of a directory, or `none`", plain::state_directory),
)
.example("\"/var/lib/pgsteer\"")
.unset("systemd's state directory, else `$XDG_STATE_HOME/pgsteer` or `~/.local/state/pgsteer`")
.help(
    "The directory of the stored member list, which is used at a start while no Patroni can return \
     one (an etcd \
     that is down). \"none\" stores nothing.",
)
.flags(&[Flag::new(Command::Both, "--state-directory", "DIR").help(
    "Directory of the stored member list, or `none` [default: $STATE_DIRECTORY, \
     $XDG_STATE_HOME/pgsteer or ~/.local/state/pgsteer]",
)]);

static SPLIT_BRAIN: Key<Choice<SplitBrain>> = Key::new(
    SECTION,
    "split_brain",
    Choice::new(
        SplitBrain::Block,
        &[SplitBrain::Block, SplitBrain::HighestTimeline],
        SplitBrain::as_str,
    ),
)
.help(
    "Without Patroni only: what to do when two members accept writes. `block` shuts them both until \
     a person has decided; `highest_timeline` opens the one that was promoted last.",
);

/// Returns the settings of the cluster; none if an error makes them unknown.
pub fn finish(draft: &Draft, errors: &mut ConfigErrors) -> Option<ClusterConfig> {
    check_split_brain(draft, errors);
    check_silence(draft, errors);
    check_local(draft, errors);
    let mut members = membership(draft, errors);
    let check = match draft.section(check::SECTION).given() {
        Some(given) => Some(check::finish(given, errors)?),
        None => None,
    };
    let mut etcd = match draft.section(etcd::SECTION).given() {
        Some(given) => Some(etcd::finish(draft, given, errors)?),
        None => None,
    };
    if let (Some(Membership::Patroni(patroni)), Some(etcd)) = (&mut members, &mut etcd) {
        join_scopes(draft, &mut patroni.pins, etcd, errors);
    }
    let keys = draft.keys(SECTION);
    let name = keys.get(&NAME).value();
    Some(ClusterConfig {
        name,
        members: members?,
        check,
        etcd,
        split_brain: keys.or_usual(&SPLIT_BRAIN),
        patroni_loss_grace: keys.or_usual(&PATRONI_LOSS_GRACE),
        silence: keys.or_usual(&SILENCE),
        here: Here {
            name: keys.get(&LOCAL).value(),
            patroni_url: None,
            state_directory: keys.get(&STATE_DIRECTORY).or(StateDirectory::Usual),
        },
    })
}

/// The scope of `[etcd]` and the pinned one are the same fact, which has the group of a Citus cluster
/// behind it in etcd. Either of them sets both.
fn join_scopes(
    draft: &Draft,
    pins: &mut Identity,
    etcd: &mut EtcdConfig,
    errors: &mut ConfigErrors,
) {
    let mut in_etcd = etcd.scope.as_deref().map(Identity::of_scope_in_etcd).unwrap_or_default();
    let (scope, group) = (draft.get(&etcd::SCOPE), draft.get(&etcd::GROUP));
    if let Some(given) = group.given() {
        let group = Identity { group: u32::try_from(given.value).ok(), ..Identity::default() };
        let of_scope = in_etcd.contradiction(&group).map(Conflict::OtherGroup);
        let of_patroni = pins.contradiction(&group).map(Conflict::OtherScope);
        if let Some(conflict) = of_patroni.or(of_scope) {
            errors.push(given.origin.clone(), conflict);
            return;
        }
        in_etcd = in_etcd.or(&group);
    }
    match (pins.contradiction(&in_etcd), scope.given()) {
        (Some(contradiction), Some(given)) => {
            errors.push(given.origin.clone(), Conflict::OtherScope(contradiction));
        }
        _ => {
            *pins = pins.or(&in_etcd);
            etcd.scope = pins.scope_in_etcd();
        }
    }
}

fn membership(draft: &Draft, errors: &mut ConfigErrors) -> Option<Membership> {
    let patroni = draft.section(patroni::SECTION);
    if patroni.is_absent() && draft.members.is_absent() {
        let (purpose, file) = (draft.purpose, draft.file.clone());
        errors.push(Origin::Whole, Conflict::NoMembers { purpose, file });
        return None;
    }
    if let (Some(patroni), Some(members)) = (patroni.given(), draft.members.given()) {
        let patroni = patroni.origin.clone();
        let both = Conflict::PatroniAndMembers { patroni };
        errors.push(members.origin.clone(), both);
    }
    if draft.is_listed() && draft.section(check::SECTION).is_absent() {
        let origin = draft.members.given().map(|given| given.origin.clone());
        errors.push(origin.unwrap_or(Origin::Whole), Conflict::NoCheckLogin(draft.purpose));
    }
    let listed = draft.members.given().map(|given| members::finish(given, errors));
    let patroni = patroni.given().map(|given| patroni::finish(given, errors));
    match (patroni, listed) {
        (Some(patroni), _) => patroni.map(Membership::Patroni),
        (None, Some(listed)) => listed.map(Membership::Listed),
        (None, None) => None,
    }
}

fn check_split_brain(draft: &Draft, errors: &mut ConfigErrors) {
    let policy = draft.get(&SPLIT_BRAIN);
    let highest = policy.given().filter(|given| given.value == SplitBrain::HighestTimeline);
    if let (Some(given), false) = (highest, draft.section(patroni::SECTION).is_absent()) {
        errors.push(given.origin.clone(), Conflict::HighestTimelineWithPatroni);
    }
}

/// Checks the local member against listed members. With Patroni the engine finds the members later.
fn check_local(draft: &Draft, errors: &mut ConfigErrors) {
    let local = draft.get(&LOCAL);
    let (Some(local), Some(members)) = (local.given(), draft.members.given()) else {
        return;
    };
    let names = || members.value.iter().map(|(name, _)| name);
    if draft.is_listed() && !names().any(|name| *name == local.value) {
        let unknown = Conflict::UnknownLocal(local.value.clone(), names().cloned().collect());
        errors.push(local.origin.clone(), unknown);
    }
}

/// Checks that sessions are not closed for silence while an answer may still arrive in time.
fn check_silence(draft: &Draft, errors: &mut ConfigErrors) {
    let written: Field<Duration> = draft.get(&SILENCE);
    let silence = draft.keys(SECTION).or_usual(&SILENCE);
    let answers = [
        ("Patroni's answer", draft.get(&patroni::TIMEOUT)),
        ("a check's answer", draft.get(&check::TIMEOUT)),
    ];
    for (of, timeout) in answers {
        let Some(timeout) = timeout.value().filter(|timeout| silence < *timeout) else {
            continue;
        };
        let origin = written.given().map_or_else(
            || Origin::Default("cluster.silence_seconds".to_owned()),
            |given| given.origin.clone(),
        );
        errors.push(origin, Conflict::SilenceTooShort { timeout, of });
    }
}
