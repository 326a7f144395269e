//! Every combination of shader files that can be joined parses and validates under naga, with and without subgroups.
//! The same combinations are compiled by a real browser in `tests/browser`.

use headwater::gpu::shader::{Dialect, all_sources};

#[test]
fn every_combination_validates() {
    let plain = Dialect::default();
    let subgroups = Dialect { subgroups: true, subgroups_directive: false };
    let sources = all_sources(&[plain, subgroups]);
    assert!(sources.len() > 30, "{} combinations", sources.len());
    let mut failures = vec![];
    for (name, source) in &sources {
        let module = match naga::front::wgsl::parse_str(source) {
            Ok(module) => module,
            Err(error) => {
                failures.push(format!("{name}: {}", error.emit_to_string(source)));
                continue;
            }
        };
        let mut validator =
            naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all());
        validator.subgroup_stages(naga::valid::ShaderStages::all());
        validator.subgroup_operations(naga::valid::SubgroupOperationSet::all());
        if let Err(error) = validator.validate(&module) {
            failures.push(format!("{name}: {}", error.emit_to_string(source)));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// A tactic is a number or an included file: directives stand in the preamble only.
#[test]
fn directives_stand_in_the_preamble_only() {
    let plain = Dialect::default();
    for (name, source) in all_sources(&[plain]) {
        let directive = source.lines().find(|line| line.starts_with("enable ") || line.starts_with("requires "));
        assert_eq!(directive, None, "{name}");
    }
}
