/** All of it, as the page imports it. */
import "./policy.js";

export * as openai from "./openai.js";
export * from "./others.js";
