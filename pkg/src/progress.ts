/** Loading's reports with their rate: how fast bytes come, and when they will all be there. */
import type { Progress } from "./types.js";

/** What the engine reports; the hub reckons its rate by itself. */
export type Report = Omit<Progress, "bytesPerSecond" | "etaSecs"> & Partial<Pick<Progress, "bytesPerSecond" | "etaSecs">>;

/** What the hub reports where what was kept is not there any more. */
export interface Lost {
  readonly phase: "lost";
  /** The file. */
  readonly file: string;
}

/** A listener for the engine's reports that adds the mean rate since the first one of the phase. */
export function withRate(listener: (progress: Progress) => void): (report: Report) => void {
  let phase: Report["phase"] | undefined;
  let startMs = 0;
  let startBytes = 0;
  return (report) => {
    if (report.bytesPerSecond !== undefined) {
      listener({ ...report, bytesPerSecond: report.bytesPerSecond, etaSecs: report.etaSecs ?? null });
      return;
    }
    const nowMs = performance.now();
    if (report.phase !== phase) [phase, startMs, startBytes] = [report.phase, nowMs, report.loadedBytes];
    const secs = (nowMs - startMs) / 1000;
    const bytesPerSecond = secs > 0 ? (report.loadedBytes - startBytes) / secs : 0;
    const leftBytes = report.totalBytes - report.loadedBytes;
    listener({ ...report, bytesPerSecond, etaSecs: bytesPerSecond > 0 ? leftBytes / bytesPerSecond : null });
  };
}
