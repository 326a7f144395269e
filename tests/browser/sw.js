/** The service worker of the tests' pages, as a site would have its own. */
import "/pkg/dist/service-worker/worker.js";
