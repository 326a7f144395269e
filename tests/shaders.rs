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

/// What is joined is the text of the files without their comments, line by line: a compiler's message leads to the file.
#[test]
fn shaders_lose_their_comments_and_keep_their_lines() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let mut compared = 0;
    for (name, source) in all_sources(&[Dialect::default()]) {
        assert!(!source.contains("/*"), "{name}: comments of several lines would be joined");
        let mut parts = source.split("// --- ");
        assert!(!parts.next().unwrap_or_default().contains("//"), "{name}");
        for part in parts {
            let (file, bare) = part.split_once('\n').expect("a banner is a line");
            assert!(!bare.contains("//"), "{name}: {file} has comments");
            let Ok(whole) = std::fs::read_to_string(folder.join(file)) else { continue };
            for (number, (bare, whole)) in bare.lines().zip(whole.lines()).enumerate() {
                assert_eq!(
                    bare,
                    whole.split("//").next().unwrap_or_default().trim_end(),
                    "{name}: {file}:{}",
                    number + 1
                );
            }
            compared += 1;
        }
    }
    assert!(compared > 30, "{compared} files");
}
