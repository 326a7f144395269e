/** What happens to a loaded model beside the calls that are made of it; see `LoadOptions.onEvent`. */
export type ModelEvent =
  /** The graphics device is gone (a driver was reset, the browser's graphics process ended). The model is loaded on another one. */
  | { readonly type: "deviceLost"; readonly message: string }
  /** The worker has ended, or its engine stopped working. The model is loaded in another one. */
  | { readonly type: "workerLost"; readonly message: string }
  /** The model is there again, on the backend that is named; what was under way goes on. */
  | { readonly type: "recovered"; readonly tookSecs: number; readonly backend: string }
  /** What was kept on this device is not there any more. A model that is loaded goes on; one that is being loaded is fetched again. */
  | { readonly type: "storageLost"; readonly message: string }
  /** What users of the model should know, one of `info.warnings`: that its kernels failed their self-test, for one. */
  | { readonly type: "warning"; readonly message: string };
