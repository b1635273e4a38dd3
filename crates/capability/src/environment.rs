//! Which variables of its environment a guest sees.

use std::collections::BTreeMap;

use crate::annotation;

/// Leaves of `env` what the annotations let through: those that
/// `io.wisp.env.allow` lists, if it is there, without those that
/// `io.wisp.env.deny` lists. A name may end in `*`.
///
/// # Errors
/// The annotation that is no list of names, and what is wrong.
pub fn filter(
    env: &mut Vec<(String, String)>,
    annotations: &BTreeMap<String, String>,
) -> Result<(), (&'static str, String)> {
    let names = |key: &'static str| {
        annotations
            .get(key)
            .map(|text| list(text).map_err(|problem| (key, problem)))
            .transpose()
    };
    if let Some(allow) = names(annotation::ENV_ALLOW)? {
        env.retain(|(name, _)| allow.iter().any(|pattern| matches(pattern, name)));
    }
    if let Some(deny) = names(annotation::ENV_DENY)? {
        env.retain(|(name, _)| !deny.iter().any(|pattern| matches(pattern, name)));
    }
    Ok(())
}

/// Whether `pattern`, which may end in `*`, covers `name`.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

fn list(text: &str) -> Result<Vec<&str>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let bare = name.strip_suffix('*').unwrap_or(name);
            match bare.contains(['=', '*', '\0']) {
                false => Ok(name),
                true => Err(format!(
                    "{name:?} is not the name of a variable, of which the end may be *"
                )),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(pairs: &[(&str, &str)]) -> Result<Vec<String>, &'static str> {
        let annotations = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let mut env = ["PATH", "APP_MODE", "APP_KEY", "KUBERNETES_PORT"]
            .map(|name| (name.to_owned(), "x".to_owned()))
            .to_vec();
        filter(&mut env, &annotations).map_err(|(key, _)| key)?;
        Ok(env.into_iter().map(|(name, _)| name).collect())
    }

    #[test]
    fn names_and_beginnings_are_let_through_or_kept_back() {
        let allow = (annotation::ENV_ALLOW, "APP_*, PATH");
        let deny = (annotation::ENV_DENY, "APP_KEY,KUBERNETES_*");
        let all = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(left(&[allow]), all(&["PATH", "APP_MODE", "APP_KEY"]));
        assert_eq!(left(&[deny]), all(&["PATH", "APP_MODE"]));
        assert_eq!(left(&[allow, deny]), all(&["PATH", "APP_MODE"]));
        assert_eq!(left(&[(annotation::ENV_ALLOW, "")]), all(&[]));
        assert_eq!(left(&[(annotation::ENV_DENY, "*")]), all(&[]));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["A=b", "*A", "A**"] {
            let wrong = left(&[(annotation::ENV_DENY, text)]);
            assert_eq!(wrong, Err(annotation::ENV_DENY), "{text}");
        }
    }
}
