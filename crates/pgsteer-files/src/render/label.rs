//! Labels: the names of members and services in HAProxy's configuration, as `pgsteer render` writes them.

use std::collections::BTreeSet;

/// Converts names to labels. HAProxy allows letters, digits, `_`, `-`, `.` and `:` in the names of
/// proxies and servers. The colon is reserved for names that are generated here, so those never
/// equal the operator's.
pub fn labels<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let names: Vec<&str> = names.into_iter().collect();
    // A name that is already valid is kept, regardless of the names before it.
    taken.extend(names.iter().filter(|name| plain(name) == **name).map(ToString::to_string));
    names
        .iter()
        .map(|name| {
            let bare = plain(name);
            if bare == **name {
                return bare;
            }
            let mut label = bare.clone();
            let mut count = 1;
            while !taken.insert(label.clone()) {
                count += 1;
                label = format!("{bare}_{count}");
            }
            label
        })
        .collect()
}

fn plain(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    name.chars().map(|c| if fits(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_plain_and_never_meet() {
        assert_eq!(
            labels(["n1", "größe", "gr__e", "gr€€e", "a b"]),
            ["n1", "gr__e_2", "gr__e", "gr__e_3", "a_b"]
        );
    }
}
