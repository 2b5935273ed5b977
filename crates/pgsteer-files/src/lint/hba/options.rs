//! The options after the method of a line (`parse_hba_auth_opt` and `parse_hba_line` in hba.c).

use crate::lint::word_shown;
use pgsteer_config::suggest::nearest;

/// The options, each with the methods that accept it; empty if every method does.
const OPTIONS: [(&str, &[&str]); 29] = [
    ("map", &["ident", "peer", "gss", "sspi", "cert", "oauth"]),
    ("clientcert", &[]),
    ("clientname", &[]),
    ("pamservice", &["pam"]),
    ("pam_use_hostname", &["pam"]),
    ("ldapurl", &["ldap"]),
    ("ldaptls", &["ldap"]),
    ("ldapscheme", &["ldap"]),
    ("ldapserver", &["ldap"]),
    ("ldapport", &["ldap"]),
    ("ldapbinddn", &["ldap"]),
    ("ldapbindpasswd", &["ldap"]),
    ("ldapsearchattribute", &["ldap"]),
    ("ldapsearchfilter", &["ldap"]),
    ("ldapbasedn", &["ldap"]),
    ("ldapprefix", &["ldap"]),
    ("ldapsuffix", &["ldap"]),
    ("krb_realm", &["gss", "sspi"]),
    ("include_realm", &["gss", "sspi"]),
    ("compat_realm", &["sspi"]),
    ("upn_username", &["sspi"]),
    ("radiusservers", &["radius"]),
    ("radiusports", &["radius"]),
    ("radiussecrets", &["radius"]),
    ("radiusidentifiers", &["radius"]),
    ("issuer", &["oauth"]),
    ("scope", &["oauth"]),
    ("validator", &["oauth"]),
    ("delegate_ident_mapping", &["oauth"]),
];

/// The first version in which `clientcert` accepts only keywords.
const CLIENTCERT_WORDS: u16 = 14;

/// Returns the reason why PostgreSQL refuses one option of a line.
pub fn refusal(kind: &str, method: &str, option: &str, postgres: Option<u16>) -> Option<String> {
    let Some((name, value)) = option.split_once('=') else {
        // It may be a password that a space separated from its name, so it is not shown.
        return Some("only options may follow the method: NAME=VALUE".to_owned());
    };
    let Some((_, methods)) = OPTIONS.iter().find(|(known, _)| *known == name) else {
        let names: Vec<&'static str> = OPTIONS.iter().map(|(name, _)| *name).collect();
        let meant = nearest(name, &names);
        let meant = meant.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        return Some(format!("there is no option `{}`{meant}", word_shown(name)));
    };
    if !methods.is_empty() && !methods.contains(&method) {
        let of = methods.join(", ");
        return Some(format!("`{name}` is an option of {of}, and the method is `{method}`"));
    }
    match name {
        "clientcert" | "clientname" if kind != "hostssl" => {
            Some(format!("`{name}` is for `hostssl` lines only"))
        }
        "clientcert" if method == "cert" && value != "verify-full" => {
            Some("with `cert`, `clientcert` can only be `verify-full`".to_owned())
        }
        "clientcert" => {
            let is_old = postgres.is_some_and(|version| version < CLIENTCERT_WORDS);
            let is_word = ["verify-ca", "verify-full"].contains(&value);
            let is_of_old = ["0", "1", "no-verify"].contains(&value);
            let is_known = is_word || is_old && is_of_old;
            (!is_known).then(|| {
                let value = word_shown(value);
                format!("`clientcert` is `verify-ca` or `verify-full`, not `{value}`, from PostgreSQL 14 on")
            })
        }
        "clientname" if !["CN", "DN"].contains(&value) => {
            Some("`clientname` is `CN` or `DN`".to_owned())
        }
        "ldapport" if value.parse::<u16>().is_err() => Some("`ldapport` is not a port".to_owned()),
        _ => None,
    }
}

/// Returns the reason why PostgreSQL refuses the options of a line together.
pub fn refusal_of_all(method: &str, options: &[&str]) -> Option<&'static str> {
    let has =
        |name: &str| options.iter().any(|it| it.split_once('=').is_some_and(|(it, _)| it == name));
    match method {
        "ldap" => {
            let binds = has("ldapprefix") || has("ldapsuffix");
            let searches = [
                "ldapbasedn",
                "ldapbinddn",
                "ldapbindpasswd",
                "ldapsearchattribute",
                "ldapsearchfilter",
                "ldapurl",
            ];
            if binds && searches.into_iter().any(has) {
                Some("`ldapprefix` and `ldapsuffix` exclude the options of a search")
            } else if !binds && !has("ldapbasedn") && !has("ldapurl") {
                Some("`ldap` needs `ldapprefix`, `ldapsuffix` or `ldapbasedn`")
            } else if has("ldapsearchattribute") && has("ldapsearchfilter") {
                Some("`ldapsearchattribute` and `ldapsearchfilter` exclude each other")
            } else {
                None
            }
        }
        "radius" if !has("radiusservers") => Some("`radius` needs `radiusservers`"),
        "radius" if !has("radiussecrets") => Some("`radius` needs `radiussecrets`"),
        "oauth" if !has("issuer") => Some("`oauth` needs `issuer`"),
        "oauth" if !has("scope") => Some("`oauth` needs `scope`"),
        _ => None,
    }
}

/// Returns the first version that supports this word; none for words that all versions support.
pub fn since(word: &str) -> Option<u16> {
    match word {
        "oauth" => Some(18),
        "include" | "include_if_exists" | "include_dir" => Some(16),
        "hostgssenc" | "hostnogssenc" => Some(12),
        "scram-sha-256" => Some(10),
        _ => None,
    }
}
