/** The models that are served, by name. */
import { HeadwaterError } from "../errors.js";
import { now, type Served } from "./completions.js";
import { RequestError } from "./errors.js";
import type { ModelList, ServedModel, ServedModels } from "./types.js";

/** Models by the names that requests call them. */
export function named(models: ServedModels): ReadonlyMap<string, ServedModel> {
  const byName = new Map(isModel(models) ? [[models.info.name, models]] : Object.entries(models));
  if (byName.size === 0) throw new HeadwaterError("InvalidArgument", "there is no model to serve");
  return byName;
}

function isModel(models: ServedModels): models is ServedModel {
  return typeof models.generate === "function" && typeof models.info === "object" && "name" in models.info;
}

/** The model that a request names. */
export function find(models: ReadonlyMap<string, ServedModel>, name: unknown): Served {
  if (typeof name !== "string" || name === "") throw new RequestError("invalid_value", "model", "'model' does not name a model.");
  const model = models.get(name);
  if (model === undefined) {
    const known = [...models.keys()].join(", ");
    throw new RequestError("model_not_found", "model", `The model '${name}' does not exist; there is: ${known}.`);
  }
  return { model, name };
}

/** All of them. */
export function list(models: ReadonlyMap<string, ServedModel>): ModelList {
  const created = now();
  return { object: "list", data: [...models.keys()].map((id) => ({ id, object: "model", created, owned_by: "headwater" })) };
}
