//! Names of ggml's tensor types, for messages about those that are not supported.

use crate::error::{Error, ErrorKind};
use crate::quant::FORMATS;

/// ggml's names by their numbers. Those that GGUF once had and dropped say so.
const TYPES: &[(u32, &str)] = &[
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (4, "Q4_2 (removed from GGUF)"),
    (5, "Q4_3 (removed from GGUF)"),
    (6, "Q5_0"),
    (7, "Q5_1"),
    (8, "Q8_0"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (12, "Q4_K"),
    (13, "Q5_K"),
    (14, "Q6_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (30, "BF16"),
    (31, "Q4_0_4_4 (removed from GGUF)"),
    (32, "Q4_0_4_8 (removed from GGUF)"),
    (33, "Q4_0_8_8 (removed from GGUF)"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (36, "IQ4_NL_4_4 (removed from GGUF)"),
    (37, "IQ4_NL_4_8 (removed from GGUF)"),
    (38, "IQ4_NL_8_8 (removed from GGUF)"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
    (42, "Q2_0"),
];

/// The error for a tensor of a type that has no [`crate::quant::Format`].
pub(super) fn unsupported(gguf_type: u32) -> Error {
    let name = TYPES.iter().find(|(number, _)| *number == gguf_type).map_or("unknown", |(_, name)| *name);
    let known = FORMATS.iter().filter(|(_, format)| format.gguf_type.is_some());
    let supported: Vec<_> = known.map(|(_, format)| format.name).collect();
    let supported = supported.join(", ");
    Error::new(
        ErrorKind::UnsupportedFormat,
        format!("tensor type {gguf_type}, {name}, is not supported; supported are {supported}"),
    )
}

#[cfg(test)]
mod tests {
    use super::{FORMATS, TYPES, unsupported};

    #[test]
    fn the_names_are_those_of_our_formats_where_we_have_them() {
        for (_, format) in FORMATS {
            let Some(gguf_type) = format.gguf_type else { continue };
            let (_, name) = TYPES.iter().find(|(number, _)| *number == gguf_type).unwrap();
            assert_eq!(name.to_lowercase(), format.name);
        }
    }

    #[test]
    fn an_unsupported_type_is_named_with_what_is_supported() {
        let message = unsupported(40).to_string();
        assert!(message.contains("NVFP4") && message.contains("q4_0"), "{message}");
        assert!(unsupported(9999).to_string().contains("unknown"));
    }
}
