//! What the caller allows: judged before any weight byte is asked for.

use serde::Deserialize;

use super::license::{License, Obligation};
use super::manifest::{Expected, RepoFile};
use crate::error::{Error, ErrorKind, Result};

/// What becomes of a model whose licence is not known, or not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnknown {
    /// It may be used.
    Allow,
    /// It may not.
    #[default]
    Deny,
    /// The consent hook decides; where there is none, it may not.
    Ask,
}

/// Whether what a model was made from is judged too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BaseModels {
    /// Only what the model itself tells.
    #[default]
    Ignore,
    /// The hub is asked for the cards of its base models, and each is held against the same lists.
    Check,
}

/// Which licences may be used. Entries are identifiers as in [`License::id`] or SPDX names, with `*` at their end for all
/// that begin so, or `@` and an obligation (`@non-commercial`) for all that ask for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LicensePolicy {
    /// Only these, where it is given.
    pub allow: Option<Vec<String>>,
    /// None of these; stronger than `allow`.
    pub deny: Vec<String>,
    /// What is neither named by a list nor known.
    pub on_unknown: OnUnknown,
    /// What becomes of base models.
    pub base_model: BaseModels,
}

/// What the caller allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Policy {
    /// Which licences; any where it is not given.
    pub licenses: Option<LicensePolicy>,
    /// Hosts beside the hub's own: `host`, `host:port` or `*.domain`.
    pub hosts: Vec<String>,
    /// Most bytes of one model.
    pub max_bytes: Option<u64>,
    /// Only files whose hashes are known before they come.
    pub require_hash: bool,
}

/// What a policy says to a licence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be used.
    Allowed,
    /// The consent hook decides, for this reason.
    Ask(String),
    /// It may not be used, for this reason.
    Denied(String),
}

impl Policy {
    /// Reads a policy. Fails with `InvalidArgument` for what is unknown or of the wrong type.
    pub fn from_json(json: &str) -> Result<Policy> {
        let policy: Policy = serde_json::from_str(json)
            .map_err(|error| Error::new(ErrorKind::InvalidArgument, error.to_string()).at("policy"))?;
        policy.check_entries()?;
        Ok(policy)
    }

    /// Fails where an entry of a list can never fit.
    fn check_entries(&self) -> Result<()> {
        let lists = self.licenses.iter().flat_map(|licenses| licenses.allow.iter().flatten().chain(&licenses.deny));
        for entry in lists {
            let obligation = entry.strip_prefix('@');
            let unknown = obligation.is_some_and(|name| Obligation::ALL.iter().all(|known| known.name() != name));
            if unknown || entry.trim().is_empty() || entry.trim_end_matches('*').contains('*') {
                let known: Vec<_> = Obligation::ALL.iter().map(|known| format!("@{}", known.name())).collect();
                let words = format!(
                    "{entry:?} is no entry: an identifier such as apache-2.0 or llama*, or one of {}",
                    known.join(", ")
                );
                return Err(Error::new(ErrorKind::InvalidArgument, words).at("policy: licenses"));
            }
        }
        Ok(())
    }

    /// Whether base models are judged too.
    pub fn checks_bases(&self) -> bool {
        self.licenses.as_ref().is_some_and(|licenses| licenses.base_model == BaseModels::Check)
    }

    /// What the policy says to a licence and, where it looks at them, to those of the model's base models.
    pub fn judge(&self, license: &License) -> Verdict {
        let own = self.judge_one(license);
        if !self.checks_bases() {
            return own;
        }
        let untold = License::default();
        let unasked = license.base_models.first().filter(|_| license.bases.is_empty()).map(|repo| (repo, &untold));
        let bases = license.bases.iter().map(|base| (&base.repo, &base.license)).chain(unasked);
        bases.fold(own, |verdict, (repo, license)| {
            let of = |why: String| format!("of its base model {repo}: {why}");
            match (verdict, self.judge_one(license)) {
                (Verdict::Denied(why), _) => Verdict::Denied(why),
                (_, Verdict::Denied(why)) => Verdict::Denied(of(why)),
                (Verdict::Ask(why), Verdict::Ask(more)) => Verdict::Ask(format!("{why}; {}", of(more))),
                (Verdict::Allowed, Verdict::Ask(why)) => Verdict::Ask(of(why)),
                (verdict, Verdict::Allowed) => verdict,
            }
        })
    }

    fn judge_one(&self, license: &License) -> Verdict {
        let Some(policy) = &self.licenses else { return Verdict::Allowed };
        let named = license.id.as_deref().unwrap_or("not told");
        if let Some(entry) = policy.deny.iter().find(|entry| fits(entry, license)) {
            return Verdict::Denied(format!("its licence ({named}) is denied by {entry:?}"));
        }
        if let Some(allow) = &policy.allow
            && allow.iter().any(|entry| fits(entry, license))
        {
            return Verdict::Allowed;
        }
        if license.known {
            return match &policy.allow {
                None => Verdict::Allowed,
                Some(_) => Verdict::Denied(format!("its licence ({named}) is not among those allowed")),
            };
        }
        let reason = match &license.id {
            Some(id) => format!("its licence ({id}) is not known"),
            None => "it tells no licence".to_owned(),
        };
        match policy.on_unknown {
            OnUnknown::Allow => Verdict::Allowed,
            OnUnknown::Deny => Verdict::Denied(reason),
            OnUnknown::Ask => Verdict::Ask(reason),
        }
    }

    /// Fails with `PolicyRefused` where the files are too large or lack what would verify them.
    pub fn check_files(&self, files: &[RepoFile]) -> Result<()> {
        let refused = |words: String| Err(Error::new(ErrorKind::PolicyRefused, words));
        let total = files.iter().fold(0_u64, |total, file| total.saturating_add(file.size_bytes));
        if let Some(most) = self.max_bytes.filter(|most| total > *most) {
            return refused(format!("the model has {total} bytes, the policy allows {most} (maxBytes)"));
        }
        match files.iter().find(|file| matches!(file.expected, Expected::Unknown(_))) {
            Some(file) if self.require_hash => {
                refused(format!("no hash of {} is known beforehand (requireHash)", file.path))
            }
            _ => Ok(()),
        }
    }
}

/// Whether an entry of a list means a licence. Of several licences, joined by `and`, `allow` has to mean the whole name.
fn fits(entry: &str, license: &License) -> bool {
    let entry = entry.trim().to_ascii_lowercase();
    if let Some(name) = entry.strip_prefix('@') {
        return license.obligations.iter().any(|obligation| obligation.name() == name);
    }
    let names = license.id.iter().map(|id| id.to_ascii_lowercase()).chain(license.spdx.map(str::to_ascii_lowercase));
    names.into_iter().any(|name| match entry.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == entry,
    })
}

#[cfg(test)]
mod tests {
    use super::{License, Policy, Verdict};
    use crate::hub::Card;

    fn judge(policy: &str, header: &str) -> Verdict {
        let card = Card::from_markdown(&format!("---\n{header}\n---\n"));
        Policy::from_json(policy).unwrap().judge(&License::of_card(&card))
    }

    #[test]
    fn licences_are_judged_as_the_policy_says() {
        let allowed = |policy: &str, header: &str| judge(policy, header) == Verdict::Allowed;
        let permissive = r#"{"licenses": {"allow": ["apache-2.0", "MIT", "llama3*"], "deny": ["llama3.1"]}}"#;
        assert!(allowed(permissive, "license: apache-2.0") && allowed(permissive, "license: mit"));
        assert!(allowed(permissive, "license: llama3.2") && !allowed(permissive, "license: llama3.1"));
        assert!(!allowed(permissive, "license: gemma") && !allowed(permissive, "license: acme"));
        assert!(!allowed(permissive, "license: [mit, gemma]"));
        let commercial = r#"{"licenses": {"deny": ["@non-commercial"], "onUnknown": "ask"}}"#;
        assert!(allowed(commercial, "license: gemma") && !allowed(commercial, "license: cc-by-nc-4.0"));
        assert!(matches!(judge(commercial, "license: acme"), Verdict::Ask(reason) if reason.contains("acme")));
        assert!(matches!(judge(commercial, "language: en"), Verdict::Ask(reason) if reason.contains("no licence")));
        let own = r#"{"licenses": {"allow": ["acme"], "onUnknown": "deny"}}"#;
        assert!(allowed(own, "license: acme") && !allowed(own, "license: mit"));
        assert!(allowed(r#"{"licenses": {"onUnknown": "allow"}}"#, "language: en"));
        assert!(allowed("{}", "language: en"));
        assert!(!allowed(r#"{"licenses": {}}"#, "language: en"));
    }

    #[test]
    fn what_no_policy_can_mean_is_refused() {
        for bad in [
            r#"{"license": {}}"#,
            r#"{"licenses": {"allow": "mit"}}"#,
            r#"{"licenses": {"deny": ["@commercial"]}}"#,
            r#"{"licenses": {"deny": ["a*b"]}}"#,
            r#"{"licenses": {"onUnknown": "maybe"}}"#,
            r#"{"maxBytes": -1}"#,
        ] {
            assert!(Policy::from_json(bad).is_err(), "{bad}");
        }
    }
}
