/** Whether everything is tried (`cargo xtask test --sweep`), or a choice that takes minutes. */
export const SWEEP = process.env["HEADWATER_SWEEP"] === "1";
