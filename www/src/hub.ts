/** The hub that the page asks, and how: only after the visitor chose a model, never before. */
import type { FitChoice, FitOptions, License, LoadOptions } from "../pkg/dist/index.js";

/** What a model is called, and on which terms it was accepted. */
export interface Accepted {
  /** As the package takes it. */
  readonly reference: string;
  readonly name: string;
  /** The licence that was shown when the visitor agreed; `fetched` terms must be the same. */
  readonly license: string;
  /** What has to be changed for it to fit, where it does not as it is. */
  readonly changed?: FitChoice["options"] | undefined;
}

/** The hub's origin. `?hub=` of the page's address names a mirror with the same layout, relative to the page or absolute. */
export const ENDPOINT = endpoint(new URLSearchParams(location.search).get("hub"));

/** The hub's host, as the page says it. */
export const HUB_NAME = new URL(ENDPOINT).host;

function endpoint(named: string | null): string {
  return named === null ? "https://huggingface.co" : new URL(named, location.href).href.replace(/\/$/, "");
}

/** A reference as the package takes it, of whatever the catalogue or the visitor wrote. */
export function toReference(written: string): string {
  return written.includes("://") ? written : `hf:${written}`;
}

let token = "";

/** Keeps an access token for this visit, in memory only. */
export function setToken(given: string): void {
  token = given.trim();
}

/** Options of every question to the hub. */
export function hubOptions(): Pick<FitOptions, "endpoint" | "token"> {
  return { endpoint: ENDPOINT, ...(token === "" ? {} : { token }) };
}

/** Options of a load whose terms were accepted: other terms than those that were shown end it. */
export function loadOptions({ license, changed }: Accepted): LoadOptions {
  return {
    ...hubOptions(),
    policy: { licenses: { onUnknown: "ask" } },
    consent: (asked) => licenseKey(asked) === license,
    ...changed,
  };
}

/** What makes two licences the same to the visitor. */
export function licenseKey({ id, name, link }: License): string {
  return JSON.stringify([id, name, link]);
}

const UNFINISHED = "headwater-unfinished";

/** Notes the download that is under way, so that it can go on after a reload; nothing once it is done. */
export function noteUnfinished(accepted: Accepted | undefined): void {
  try {
    if (accepted === undefined) localStorage.removeItem(UNFINISHED);
    else localStorage.setItem(UNFINISHED, JSON.stringify(accepted));
  } catch {
    // No storage for this page: it will have to be chosen again.
  }
}

/** The download that was under way when the page was last left. */
export function unfinished(): Accepted | undefined {
  try {
    const { reference, name, license, changed } = JSON.parse(localStorage.getItem(UNFINISHED) ?? "null") as Record<string, unknown>;
    if (typeof reference !== "string" || typeof name !== "string" || typeof license !== "string") return undefined;
    // The package refuses what is none of its options, by name.
    return { reference, name, license, changed: typeof changed === "object" && changed !== null ? changed : undefined };
  } catch {
    return undefined;
  }
}
