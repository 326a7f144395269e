/** What passes between the service worker and the pages that serve. */

/** A request as it is handed over. */
export interface Asked {
  readonly url: string;
  readonly method: string;
  readonly headers: readonly (readonly [string, string])[];
  /** Absent where the method has none. */
  readonly body?: Blob;
}

/** From the service worker to a page. */
export type ToPage =
  | { readonly type: "headwater-who" }
  /** Comes with a port, over which the `Part`s of the answer go back. */
  | { readonly type: "headwater-request"; readonly asked: Asked };

/** From a page to the service worker. */
export type FromPage = { readonly type: "headwater-serves" } | { readonly type: "headwater-stops" };

/** Parts of an answer. */
export type Part =
  | { readonly type: "head"; readonly status: number; readonly headers: readonly (readonly [string, string])[] }
  | { readonly type: "bytes"; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly type: "end" }
  /** Nothing serves in this page any more: another one may answer. */
  | { readonly type: "gone" }
  | { readonly type: "failed"; readonly words: string };
