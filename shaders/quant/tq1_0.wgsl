// Plane 0: 52 bytes for each 256 weights, fractions of 256 whose digits to the base of 3 are weights, in runs of 32, 16
// (five digits a byte) and 4 bytes (four), of each run first the digits 0 of every byte. Plane 1: d, a half float.
@group(0) @binding(0) var<storage, read> plane0: array<u32>;
@group(0) @binding(1) var<storage, read> plane1: array<u32>;

fn digits(word: u32, digit: u32) -> vec4<f32> {                        // the digits `digit` of four bytes, less 1
    const POWERS = vec4<u32>(1u, 3u, 9u, 27u);
    let power = select(81u, POWERS[digit % 4u], digit < 4u);
    return vec4<f32>((((unpack4xU8(word) * power) & vec4(0xffu)) * 3u) >> vec4(8u)) - 1.0;
}

fn weights8(row: u32, group: u32) -> Weights8 {
    let at = row * (params.cols / 8u) + group;
    let block = at / 32u;
    let g = at % 32u;
    let d = half_of(plane1[block / 2u], block);
    if (g >= 30u) {
        let w = plane0[block * 13u + 12u];
        return Weights8(d * digits(w, (g - 30u) * 2u), d * digits(w, (g - 30u) * 2u + 1u));
    }
    let digit = select(g / 4u, (g - 20u) / 2u, g >= 20u);
    let word = block * 13u + select(g % 4u, 4u + g % 2u, g >= 20u) * 2u;
    return Weights8(d * digits(plane0[word], digit), d * digits(plane0[word + 1u], digit));
}
