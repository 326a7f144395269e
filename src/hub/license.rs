//! What a model's licence is and what it asks for, read from its card and from the metadata of its files.

use serde::Serialize;

use super::card::{Card, Gate};
use super::license_table::TERMS;
use super::lock::LockedLicense;
use super::manifest::Manifest;
use super::{bases, lock::LockedBase};
use crate::error::Result;
use crate::format::Metadata;

/// What a licence obliges its user to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Obligation {
    /// A text has to be shown, or the authors named.
    Attribution,
    /// Names of derived models have to begin or be made in a certain way.
    Naming,
    /// The licence's text has to go along with copies.
    Notice,
    /// Another agreement is needed above a number of users.
    UserCount,
    /// Another agreement is needed above a yearly revenue.
    RevenueLimit,
    /// Uses are ruled out by a policy.
    AcceptableUse,
    /// No commercial use.
    NonCommercial,
    /// Derived works have to come under the same licence.
    ShareAlike,
    /// Some regions are left out, or some rights in them.
    Region,
}

impl Obligation {
    /// Every obligation.
    pub const ALL: &'static [Obligation] = &[
        Obligation::Attribution,
        Obligation::Naming,
        Obligation::Notice,
        Obligation::UserCount,
        Obligation::RevenueLimit,
        Obligation::AcceptableUse,
        Obligation::NonCommercial,
        Obligation::ShareAlike,
        Obligation::Region,
    ];

    /// The name, as policies and JSON have it.
    pub fn name(self) -> &'static str {
        match self {
            Obligation::Attribution => "attribution",
            Obligation::Naming => "naming",
            Obligation::Notice => "notice",
            Obligation::UserCount => "user-count",
            Obligation::RevenueLimit => "revenue-limit",
            Obligation::AcceptableUse => "acceptable-use",
            Obligation::NonCommercial => "non-commercial",
            Obligation::ShareAlike => "share-alike",
            Obligation::Region => "region",
        }
    }
}

/// A known licence.
#[derive(Debug, PartialEq, Eq)]
pub struct Terms {
    /// The hub's identifier, or the usual name where that is `other`.
    pub id: &'static str,
    /// The SPDX identifier, where there is one.
    pub spdx: Option<&'static str>,
    /// Its name for people.
    pub title: &'static str,
    /// Other names for it, in lower case.
    pub also: &'static [&'static str],
    /// What it asks for.
    pub obligations: &'static [Obligation],
    /// The text that has to be shown.
    pub show: Option<&'static str>,
    /// Where its text was read.
    pub source: &'static str,
}

/// Every licence that is known.
pub fn known_terms() -> &'static [Terms] {
    TERMS
}

/// A model's licence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct License {
    /// The identifier, in lower case: that of a known licence, else what was written; absent where nothing was.
    pub id: Option<String>,
    /// Its name, for people.
    pub name: Option<String>,
    /// Where its text is.
    pub link: Option<String>,
    /// The SPDX identifier.
    pub spdx: Option<&'static str>,
    /// Whether what it asks for is known here.
    pub known: bool,
    /// What it asks for; empty does not mean nothing where it is not known.
    pub obligations: Vec<Obligation>,
    /// The text to show.
    pub attribution: Option<String>,
    /// Where the summary of what it asks for was read.
    pub summary_source: Option<&'static str>,
    /// Whether terms have to be accepted on the hub.
    pub gated: bool,
    /// What the model was made from.
    pub base_models: Vec<String>,
    /// How: `finetune`, `quantized`, `adapter`, `merge`.
    pub base_relation: Option<String>,
    /// The licences of what it was made from, and of what that was made from; empty where nobody asked.
    pub bases: Vec<Base>,
    /// Where all this was told: `card`, `metadata`, or nowhere.
    pub told_by: Option<&'static str>,
}

/// A model that another one was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Base {
    /// `owner/name`.
    pub repo: String,
    /// Its licence; one without an identifier where it is not told.
    pub license: License,
}

impl License {
    /// Whether the card of an adapter, whose licence this is, names one of these repositories (a model, and what that was made
    /// from) as what it was made for; `None` where it names none at all.
    pub fn is_made_for(&self, repos: &[&str]) -> Option<bool> {
        let fits = |base: &String| repos.iter().any(|repo| repo.eq_ignore_ascii_case(base));
        (!self.base_models.is_empty()).then(|| self.base_models.iter().any(fits))
    }

    /// The licence of a repository, from its card.
    pub fn of_manifest(manifest: &Manifest) -> License {
        License { gated: manifest.gate == Gate::Closed, ..License::of_card(&manifest.card) }
    }

    /// The licence that a card tells. Where it names several, what each asks for is joined, and the model counts as known
    /// only when all are.
    pub fn of_card(card: &Card) -> License {
        let licenses: Vec<License> = card
            .licenses
            .iter()
            .map(|id| told(id, card.license_name.as_deref(), card.license_link.as_deref()))
            .collect();
        let mut joined = match licenses.as_slice() {
            [] if card.license_name.is_some() => {
                told("other", card.license_name.as_deref(), card.license_link.as_deref())
            }
            [] => License { link: card.license_link.clone(), ..License::default() },
            [one] => one.clone(),
            several => join(several),
        };
        joined.base_models.clone_from(&card.base_models);
        joined.base_relation.clone_from(&card.base_relation);
        joined.told_by = joined.id.is_some().then_some("card");
        joined
    }

    /// The licence that a file's own metadata tells (`general.license`, `general.license.name`, `general.license.link`).
    pub fn of_metadata(metadata: &Metadata) -> Result<License> {
        let id = metadata.text("general.license")?;
        let (name, link) = (metadata.text("general.license.name")?, metadata.text("general.license.link")?);
        let mut license = match (id, name) {
            (Some(id), _) => told(id, name, link),
            (None, Some(_)) => told("other", name, link),
            (None, None) => License::default(),
        };
        license.told_by = license.id.is_some().then_some("metadata");
        license.base_models = bases::named_in(metadata)?;
        Ok(license)
    }

    /// This licence, or where it tells nothing the other one; base models likewise.
    #[must_use]
    pub fn or(self, other: License) -> License {
        let base_models = if self.base_models.is_empty() { other.base_models } else { self.base_models };
        let (gated, base_relation) = (self.gated || other.gated, self.base_relation);
        match self.id {
            Some(_) => License { base_models, base_relation, ..self },
            None => License { gated, base_models, base_relation, link: other.link.or(self.link), ..other },
        }
    }
}

impl From<&LockedLicense> for License {
    /// What was recorded, with what is known of it now.
    fn from(locked: &LockedLicense) -> License {
        let ids = locked.id.iter().flat_map(|id| id.split(" and ")).map(str::to_owned).collect();
        let card = Card {
            licenses: ids,
            license_name: locked.name.clone(),
            license_link: locked.link.clone(),
            base_models: locked.base_models.clone(),
            base_relation: locked.base_relation.clone(),
            asks: false,
        };
        let base = |base: &LockedBase| Base { repo: base.repo.clone(), license: License::from(&base.license) };
        License { bases: locked.bases.iter().map(base).collect(), ..License::of_card(&card) }
    }
}

/// What one identifier stands for; `other` is looked up by its name and then by its link.
fn told(id: &str, name: Option<&str>, link: Option<&str>) -> License {
    let id = id.trim().to_ascii_lowercase();
    let by_name = |name: &str| {
        let plain = name.trim().to_ascii_lowercase().replace([' ', '_'], "-");
        TERMS.iter().find(|terms| terms.id == plain || terms.also.contains(&plain.as_str()) || terms.spdx_is(&plain))
    };
    let is_other = matches!(id.as_str(), "other" | "unknown" | "custom" | "");
    let terms = if is_other {
        name.and_then(by_name).or_else(|| link.and_then(|link| TERMS.iter().find(|terms| terms.source == link)))
    } else {
        by_name(&id)
    };
    let written = if is_other { name.map(|name| name.trim().to_ascii_lowercase()) } else { Some(id) };
    let Some(terms) = terms else {
        let (name, link) = (name.map(str::to_owned), link.map(str::to_owned));
        return License { id: written.or(Some("other".to_owned())), name, link, ..License::default() };
    };
    License {
        id: Some(terms.id.to_owned()),
        name: Some(terms.title.to_owned()),
        link: Some(link.map_or_else(|| terms.link(), str::to_owned)),
        spdx: terms.spdx,
        known: true,
        obligations: terms.obligations.to_vec(),
        attribution: terms.show.map(str::to_owned),
        summary_source: Some(terms.source),
        ..License::default()
    }
}

impl Terms {
    fn spdx_is(&self, name: &str) -> bool {
        self.spdx.is_some_and(|spdx| spdx.eq_ignore_ascii_case(name))
    }

    fn link(&self) -> String {
        self.spdx.map_or_else(|| self.source.to_owned(), |spdx| format!("https://spdx.org/licenses/{spdx}.html"))
    }
}

fn join(several: &[License]) -> License {
    let texts = |part: fn(&License) -> Option<&String>, between: &str| {
        let texts: Vec<&str> = several.iter().filter_map(part).map(String::as_str).collect();
        (!texts.is_empty()).then(|| texts.join(between))
    };
    let asked = |obligation: &Obligation| several.iter().any(|license| license.obligations.contains(obligation));
    License {
        id: texts(|license| license.id.as_ref(), " and "),
        name: texts(|license| license.name.as_ref(), " and "),
        link: several.iter().find_map(|license| license.link.clone()),
        known: several.iter().all(|license| license.known),
        obligations: Obligation::ALL.iter().copied().filter(asked).collect(),
        attribution: texts(|license| license.attribution.as_ref(), "\n"),
        ..License::default()
    }
}

#[cfg(test)]
#[path = "license_tests.rs"]
mod tests;
