// Which rows of the step are a sequence's, in order, and where its state is. See README.md, "State".
struct Sequence {
    before: u32,                                                       // slot of the state before the first row
    after: u32,                                                        // slot of the state after the last row
    rows: u32,
    list: u32,                                                         // where the indices of its rows start
    fresh: bool,                                                       // it starts from zeros
}

// m: the most rows that the program takes.
fn sequence_of(index: u32, m: u32) -> Sequence {
    let entry = m + 8u + 3u * m + index * 5u;
    let rows = state[entry + 3u];
    let list = state[entry + 4u];
    let first = state[m + 8u + state[list]];
    // The later steps of a chain go on from where the first one left the state.
    let before = select(state[entry + 1u], state[entry], first == state[entry + 2u]);
    return Sequence(before, state[entry + 1u], rows, list, first == 0u);
}
