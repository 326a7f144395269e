// What all formats of keys and values share. A head of n elements takes kv_words(n) words, kv_store writes its unit u of
// kv_units(n) from `head`, and kv_load4 gives its elements i .. i + 4. `kv` is one layer's pages; kernels declare it.
const MAX_HEAD = 1024u;

var<workgroup> head: array<f32, MAX_HEAD>;                             // a key or value on its way into its page

fn kv_block(n: u32) -> u32 {                                           // elements with one scale
    return select(select(8u, 16u, n % 16u == 0u), 32u, n % 32u == 0u);
}

fn kv_scale_words(n: u32) -> u32 {                                     // two scales a word
    return (n / kv_block(n) + 1u) / 2u;
}
