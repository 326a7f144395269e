/** The chats that `cargo xtask pkg --record` watches, in the same browser as the tests. */
import config from "./playwright.config.js";

export default { ...config, testMatch: "record.ts", projects: [{ name: "webgpu" }] };
