//! Licences of card headers, written by hand as each family's cards have them.

use std::collections::BTreeSet;

use super::Obligation::{AcceptableUse, Attribution, Naming, NonCommercial, UserCount};
use super::{License, Obligation, TERMS, told};
use crate::hub::Card;

fn card(header: &str) -> License {
    License::of_card(&Card::from_markdown(&format!("---\n{header}\n---\n# Model\n")))
}

#[test]
fn each_family_is_recognised_by_its_own_cards() {
    type Case = (&'static str, &'static str, &'static [Obligation], Option<&'static str>);
    let cases: &[Case] = &[
        ("license: apache-2.0", "apache-2.0", &[], None),
        ("license: mit\nbase_model: deepseek-ai/DeepSeek-R1", "mit", &[], None),
        (
            "license: llama2\nextra_gated_heading: You need to share contact information",
            "llama2",
            &[UserCount, AcceptableUse],
            Some("Llama 2 is licensed"),
        ),
        ("license: llama3", "llama3", &[Attribution, Naming, UserCount], Some("Built with Meta Llama 3")),
        ("license: llama3.1", "llama3.1", &[Attribution, Naming, UserCount, AcceptableUse], Some("Built with Llama")),
        ("license: llama3.2", "llama3.2", &[Attribution, Naming], Some("Built with Llama")),
        ("license: llama3.3", "llama3.3", &[Attribution, Naming], Some("Built with Llama")),
        (
            "license: other\nlicense_name: llama4",
            "llama4",
            &[Attribution, Obligation::Region],
            Some("Built with Llama"),
        ),
        ("license: gemma", "gemma", &[AcceptableUse], Some("ai.google.dev/gemma/terms")),
        (
            "license: other\nlicense_name: qwen-research\nlicense_link: https://huggingface.co/Qwen/Qwen2.5-3B/blob/main/LICENSE",
            "qwen-research",
            &[NonCommercial],
            Some("Built with Qwen"),
        ),
        ("license: other\nlicense_name: tongyi-qianwen", "qwen", &[UserCount], Some("Built with Qwen")),
        (
            "license: other\nlicense_name: deepseek\nlicense_link: https://github.com/deepseek-ai/x/blob/main/LICENSE-MODEL",
            "deepseek",
            &[AcceptableUse],
            None,
        ),
        ("license: other\nlicense_name: mrl", "mrl", &[NonCommercial], None),
        ("license: other\nlicense_name: mnpl", "mnpl", &[NonCommercial], None),
        (
            "license: other\nlicense_name: falcon-llm-license",
            "falcon-llm-license",
            &[AcceptableUse],
            Some("Falcon LLM"),
        ),
        ("license: bigscience-openrail-m", "bigscience-openrail-m", &[AcceptableUse], None),
        ("license: openrail++", "openrail++", &[AcceptableUse], None),
        ("license: cc-by-nc-4.0", "cc-by-nc-4.0", &[NonCommercial, Attribution], None),
        ("license: other\nlicense_name: lfm1.0", "lfm1.0", &[Obligation::RevenueLimit], None),
        (
            "license: other\nlicense_link: https://ai.google.dev/gemma/terms",
            "gemma",
            &[AcceptableUse],
            Some("Gemma is provided"),
        ),
    ];
    for (header, id, obligations, shown) in cases {
        let license = card(header);
        assert_eq!((license.id.as_deref(), license.known), (Some(*id), true), "{header}");
        assert!(obligations.iter().all(|one| license.obligations.contains(one)), "{header}: {license:?}");
        let attribution = license.attribution.unwrap_or_default();
        assert!(shown.map_or(attribution.is_empty(), |shown| attribution.contains(shown)), "{header}: {attribution}");
        assert!(license.link.is_some_and(|link| link.starts_with("https://")), "{header}");
    }
}

#[test]
fn what_is_not_known_is_kept_as_written_and_not_called_known() {
    let own = card("license: other\nlicense_name: Acme Model Licence\nlicense_link: LICENSE");
    assert_eq!((own.id.as_deref(), own.known), (Some("acme model licence"), false));
    assert_eq!(own.link.as_deref(), Some("LICENSE"));
    assert_eq!((card("license: other").id.as_deref(), card("license: other").known), (Some("other"), false));
    let none = card("language: en");
    assert_eq!((none.id, none.known, none.told_by), (None, false, None));
    let two = card("license: [mit, cc-by-nc-4.0]");
    assert_eq!((two.id.as_deref(), two.known), (Some("mit and cc-by-nc-4.0"), true));
    assert!(two.obligations.contains(&NonCommercial));
    assert!(!card("license:\n- mit\n- acme").known);
}

#[test]
fn the_card_speaks_before_the_file() {
    let file = License { told_by: Some("metadata"), ..told("Apache-2.0", None, None) };
    assert_eq!(file.spdx, Some("Apache-2.0"));
    assert_eq!(card("license: mit").or(file.clone()).id.as_deref(), Some("mit"));
    let joined = card("base_model: o/n").or(file);
    assert_eq!((joined.id.as_deref(), joined.base_models.len()), (Some("apache-2.0"), 1));
    assert_eq!(joined.told_by, Some("metadata"));
}

#[test]
fn the_table_is_sound() {
    let mut names = BTreeSet::new();
    for terms in TERMS {
        for name in [&[terms.id][..], terms.also].concat() {
            assert!(names.insert(name), "{name} is there twice");
            assert_eq!(name, name.to_ascii_lowercase().replace([' ', '_'], "-").as_str().max(name), "{name}");
        }
        assert!(terms.source.starts_with("https://"), "{}", terms.id);
        // Who has to name somebody must be told whom, unless the text leaves the words open.
        assert!(
            terms.spdx.is_some() || !terms.obligations.contains(&Attribution) || terms.show.is_some(),
            "{}",
            terms.id
        );
    }
    for obligation in Obligation::ALL {
        assert_eq!(serde_json::to_value(obligation).unwrap(), obligation.name());
    }
}
